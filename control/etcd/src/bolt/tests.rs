//! What is planned is read back; what is damaged is refused.

use std::io::Cursor;

use proptest::prelude::*;

use super::plan::Part;
use super::*;

impl Item for (Vec<u8>, Vec<u8>) {
    fn key(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn value_len(&self) -> usize {
        self.1.len()
    }
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn write(buckets: Vec<(&'static str, Rows)>) -> Vec<u8> {
    let buckets = buckets.into_iter().map(|(name, items)| Bucket { name, items }).collect();
    let plan = Plan::new(buckets);
    let mut out = plan.head();
    for part in plan.parts() {
        match part {
            Part::Whole(bytes) => out.extend(bytes),
            Part::Leaf(leaf) => {
                let values: Vec<Vec<u8>> = leaf.items().iter().map(|(_, value)| value.clone()).collect();
                out.extend(leaf.page(&values).unwrap());
            }
        }
    }
    assert_eq!(out.len() as u64, plan.bytes());
    out
}

fn read(bytes: &[u8], bucket: &str) -> Result<Rows, ReadError> {
    let mut file = File::open(Cursor::new(bytes))?;
    let entries = file.bucket(bucket)?;
    entries.into_iter().map(|entry| Ok((entry.key.clone(), file.value(&entry)?))).collect()
}

fn numbered(count: u32, len: usize) -> Rows {
    (0..count).map(|number| (number.to_be_bytes().to_vec(), vec![number as u8; len])).collect()
}

#[test]
fn trees_of_every_height_are_read_back() {
    // Nothing, one page, two levels, three levels, values longer than a page.
    for (count, len) in [(0, 0), (1, 10), (500, 100), (40_000, 100), (3, 100_000), (200, 4000)] {
        let rows = numbered(count, len);
        let file = write(vec![("a", Rows::new()), ("b", rows.clone()), ("c", numbered(2, 3))]);
        assert_eq!(read(&file, "b").unwrap(), rows, "{count} of {len}");
        assert_eq!(read(&file, "a").unwrap(), Rows::new());
        assert_eq!(read(&file, "c").unwrap(), numbered(2, 3));
        assert_eq!(read(&file, "none").unwrap(), Rows::new());
    }
}

#[test]
fn a_value_of_another_length_than_was_said_is_no_page() {
    let plan = Plan::new(vec![Bucket { name: "a", items: numbered(2, 3) }]);
    let Some(Part::Leaf(leaf)) = plan.parts().next() else { panic!("a leaf comes first") };
    assert!(leaf.page(&[vec![0; 3], vec![0; 4]]).is_none());
    assert!(leaf.page(&[vec![0; 3]]).is_none());
}

#[test]
fn either_meta_page_is_enough_and_none_is_not() {
    let rows = numbered(10, 10);
    let good = write(vec![("a", rows.clone())]);
    for broken in [0, PAGE] {
        let mut file = good.clone();
        file[broken + PAGE_HEADER + 20] ^= 1;
        assert_eq!(read(&file, "a").unwrap(), rows);
    }
    let mut file = good.clone();
    file[PAGE_HEADER + 20] ^= 1;
    file[PAGE + PAGE_HEADER + 20] ^= 1;
    assert!(matches!(read(&file, "a"), Err(ReadError::Foreign)));
    assert!(matches!(read(b"something else", "a"), Err(ReadError::Foreign)));
    assert!(matches!(read(&good[..good.len() - PAGE], "a"), Err(ReadError::Damaged(_))));
}

proptest! {
    /// A damaged byte is refused or changes what is read; it never leads astray.
    #[test]
    fn damage_is_survived(at in 0_usize..20 * PAGE, to: u8, cut in 0_usize..PAGE) {
        let mut file = write(vec![("a", numbered(300, 100)), ("b", numbered(2, 9000))]);
        let at = at % file.len();
        file[at] = to;
        let end = file.len() - cut;
        for bucket in ["a", "b"] {
            let _ = read(&file[..end], bucket);
        }
    }
}
