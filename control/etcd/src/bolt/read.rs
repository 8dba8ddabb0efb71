//! Files that somebody else wrote: nothing in them is believed before it was checked.

use std::io::{Read, Seek, SeekFrom};

use super::{
    BRANCH, BUCKET, ELEMENT, IS_BUCKET, LEAF, MAGIC, META, META_PAGE, PAGE_HEADER, VERSION, checksum,
};

/// No tree of pages is deeper.
const DEEPEST: usize = 32;
/// The longest single value or page.
const LONGEST: u64 = 1 << 30;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It does not begin as one.
    #[error("it is not a bbolt database")]
    Foreign,
    /// Something in it makes no sense.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// The file system's.
    #[error("it cannot be read")]
    Io(#[from] std::io::Error),
}

/// A key, and where its value stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    offset: u64,
    len: usize,
}

/// An open file.
pub(crate) struct File<F> {
    file: F,
    page_size: u64,
    root: u64,
    pages: u64,
    /// How many pages were read for the bucket at hand: each page is in one place only.
    seen: u64,
}

/// A page, its overflow included.
struct Page {
    /// Where it begins in the file.
    offset: u64,
    flags: u16,
    count: usize,
    bytes: Vec<u8>,
}

impl<F: Read + Seek> File<F> {
    /// Opens the file by the newer of its two meta pages that is whole.
    pub(crate) fn open(mut file: F) -> Result<Self, ReadError> {
        let end = file.seek(SeekFrom::End(0))?;
        let first = meta(&mut file, 0, end)?;
        // Where the first is damaged the second says how large pages are: they are powers of two.
        let second = match &first {
            Some(meta) => meta_at(&mut file, u64::from(meta.page_size), end)?,
            None => {
                let mut found = None;
                for power in 9..=16 {
                    found = found.or(meta_at(&mut file, 1 << power, end)?);
                }
                found
            }
        };
        let newest = first.into_iter().chain(second).max_by_key(|meta| meta.transaction);
        let meta = newest.ok_or(ReadError::Foreign)?;
        let page_size = u64::from(meta.page_size);
        if page_size < 512 || meta.pages > end / page_size || meta.root >= meta.pages {
            return Err(ReadError::Damaged("it is shorter than it says"));
        }
        Ok(Self { file, page_size, root: meta.root, pages: meta.pages, seen: 0 })
    }

    /// Everything in one of the root's buckets, in order; nothing where there is no such bucket.
    pub(crate) fn bucket(&mut self, name: &str) -> Result<Vec<Entry>, ReadError> {
        let mut buckets = Vec::new();
        self.seen = 0;
        self.walk(self.root, 0, &mut |entry: Entry, is_bucket: bool| {
            if is_bucket && entry.key == name.as_bytes() {
                buckets.push(entry);
            }
        })?;
        let Some(found) = buckets.pop() else { return Ok(Vec::new()) };
        let value = self.value(&found)?;
        let root = u64_at(&value, 0).ok_or(ReadError::Damaged("a bucket has no root"))?;
        let mut entries = Vec::new();
        let mut keep = |entry: Entry, is_bucket: bool| {
            if !is_bucket {
                entries.push(entry);
            }
        };
        if root == 0 {
            // A small bucket is a page within the value.
            let bytes = value.get(BUCKET..).unwrap_or_default().to_vec();
            let page = Page::of(bytes, found.offset + BUCKET as u64)?;
            page.leaf(&mut keep)?;
        } else {
            self.walk(root, 0, &mut keep)?;
        }
        if entries.windows(2).any(|pair| matches!(pair, [a, b] if a.key >= b.key)) {
            return Err(ReadError::Damaged("keys are not in order"));
        }
        Ok(entries)
    }

    /// An entry's value.
    pub(crate) fn value(&mut self, entry: &Entry) -> Result<Vec<u8>, ReadError> {
        let mut value = vec![0; entry.len];
        self.file.seek(SeekFrom::Start(entry.offset))?;
        self.file.read_exact(&mut value)?;
        Ok(value)
    }

    fn walk(&mut self, id: u64, depth: usize, visit: &mut impl FnMut(Entry, bool)) -> Result<(), ReadError> {
        self.seen += 1;
        if depth > DEEPEST || self.seen > self.pages {
            return Err(ReadError::Damaged("its pages go round in circles"));
        }
        let page = self.page(id)?;
        match page.flags {
            LEAF => page.leaf(visit),
            BRANCH => {
                for index in 0..page.count {
                    let at = PAGE_HEADER + index * ELEMENT + 8;
                    let child = u64_at(&page.bytes, at).ok_or(ReadError::Damaged("a page is cut off"))?;
                    self.walk(child, depth + 1, visit)?;
                }
                Ok(())
            }
            _ => Err(ReadError::Damaged("a page is of no known kind")),
        }
    }

    fn page(&mut self, id: u64) -> Result<Page, ReadError> {
        if id < 2 || id >= self.pages {
            return Err(ReadError::Damaged("a page lies outside of it"));
        }
        let offset = id * self.page_size;
        let mut head = [0; PAGE_HEADER];
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut head)?;
        let overflow = u64::from(u32_at(&head, 12).unwrap_or(0));
        let len = (overflow + 1) * self.page_size;
        if u64_at(&head, 0) != Some(id) || id + overflow >= self.pages || len > LONGEST {
            return Err(ReadError::Damaged("a page is another than it should be"));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut bytes)?;
        Page::of(bytes, offset)
    }
}

impl Page {
    fn of(bytes: Vec<u8>, offset: u64) -> Result<Self, ReadError> {
        let cut = ReadError::Damaged("a page is cut off");
        match (u16_at(&bytes, 8), u16_at(&bytes, 10)) {
            (Some(flags), Some(count)) if bytes.len() >= PAGE_HEADER + usize::from(count) * ELEMENT => {
                Ok(Self { offset, flags, count: usize::from(count), bytes })
            }
            _ => Err(cut),
        }
    }

    fn leaf(&self, visit: &mut impl FnMut(Entry, bool)) -> Result<(), ReadError> {
        for index in 0..self.count {
            let element = PAGE_HEADER + index * ELEMENT;
            let number = |at| u32_at(&self.bytes, element + at).map(|number| number as usize);
            let (Some(flags), Some(pos), Some(key), Some(len)) =
                (number(0), number(4), number(8), number(12))
            else {
                return Err(ReadError::Damaged("a page is cut off"));
            };
            let from = element + pos;
            let bytes = self.bytes.get(from..from.saturating_add(key));
            let value = self.bytes.get(from + key..(from + key).saturating_add(len));
            let (Some(bytes), Some(_)) = (bytes, value) else {
                return Err(ReadError::Damaged("a key lies outside of its page"));
            };
            let entry = Entry { key: bytes.to_vec(), offset: self.offset + (from + key) as u64, len };
            visit(entry, flags & IS_BUCKET as usize != 0);
        }
        Ok(())
    }
}

struct Meta {
    page_size: u32,
    root: u64,
    pages: u64,
    transaction: u64,
}

/// The meta page at `offset`, where it is whole.
fn meta_at(file: &mut (impl Read + Seek), offset: u64, end: u64) -> Result<Option<Meta>, ReadError> {
    Ok(meta(file, offset, end)?.filter(|meta| u64::from(meta.page_size) == offset))
}

fn meta(file: &mut (impl Read + Seek), offset: u64, end: u64) -> Result<Option<Meta>, ReadError> {
    let mut bytes = [0; PAGE_HEADER + META];
    if offset + bytes.len() as u64 > end {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    let (head, meta) = bytes.split_at(PAGE_HEADER);
    let whole = u16_at(head, 8) == Some(META_PAGE)
        && u32_at(meta, 0) == Some(MAGIC)
        && u32_at(meta, 4) == Some(VERSION)
        && meta.get(..META - 8).map(checksum) == u64_at(meta, META - 8);
    let fields = (u32_at(meta, 8), u64_at(meta, 16), u64_at(meta, 40), u64_at(meta, 48));
    Ok(match fields {
        (Some(page_size), Some(root), Some(pages), Some(transaction)) if whole => {
            Some(Meta { page_size, root, pages, transaction })
        }
        _ => None,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}
