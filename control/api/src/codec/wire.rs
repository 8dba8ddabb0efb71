//! Protobuf's wire format: tags and the four kinds of values that are still in use.

use super::DecodeError;

/// One value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'b> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'b [u8]),
    Fixed32(u32),
}

impl Wire<'_> {
    /// The number of the wire type, for messages.
    pub(super) fn type_number(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32(_) => 5,
        }
    }
}

/// Reads the fields of one message.
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl<'b> Reader<'b> {
    /// The next field's tag and value.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'b>)>, DecodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).unwrap_or(0);
        if tag == 0 {
            return Err(DecodeError::Wire(format!("proto: illegal tag {} (wire type {key})", key >> 3)));
        }
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| truncated())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(DecodeError::Wire(format!("proto: illegal wireType {other}"))),
        };
        Ok(Some((tag, value)))
    }

    /// A number of seven bits a byte.
    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Wire("proto: integer overflow".to_owned()))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(head)
    }
}

fn truncated() -> DecodeError {
    DecodeError::Wire("unexpected EOF".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_wire_types_are_read() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: varint 150
            0x11, 1, 0, 0, 0, 0, 0, 0, 0, // 2: fixed64 1
            0x1a, 2, b'h', b'i', // 3: bytes
            0x25, 7, 0, 0, 0, // 4: fixed32 7
        ];
        let mut reader = Reader(&bytes);
        let mut read = Vec::new();
        while let Some(field) = reader.next().unwrap() {
            read.push(field);
        }
        assert_eq!(
            read,
            [(1, Wire::Varint(150)), (2, Wire::Fixed64(1)), (3, Wire::Bytes(b"hi")), (4, Wire::Fixed32(7))]
        );
    }

    #[test]
    fn broken_bytes_are_refused() {
        let cases: [(&[u8], &str); 6] = [
            (&[0x08], "unexpected EOF"),
            (&[0x1a, 5, 1], "unexpected EOF"),
            (&[0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "unexpected EOF"),
            (
                &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
                "proto: integer overflow",
            ),
            (&[0x0b], "proto: illegal wireType 3"),
            (&[0x00, 0x00], "proto: illegal tag 0 (wire type 0)"),
        ];
        for (bytes, expected) in cases {
            let error = Reader(bytes).next().unwrap_err();
            assert_eq!(error.to_string(), expected, "{bytes:?}");
        }
    }
}
