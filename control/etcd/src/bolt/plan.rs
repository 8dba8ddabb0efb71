//! Where everything stands in a file, known before its first byte is written.

use super::{
    BRANCH, BUCKET, ELEMENT, FIRST_DATA_PAGE, FREE_LIST, IS_BUCKET, LEAF, MAGIC, META, META_PAGE, PAGE,
    PAGE_HEADER, VERSION, checksum,
};

/// A key, and how long its value is.
pub(crate) trait Item {
    /// The key's bytes: items of a bucket are in their order.
    fn key(&self) -> Vec<u8>;
    /// The value's length.
    fn value_len(&self) -> usize;
}

/// A tree and its name.
pub(crate) struct Bucket<T> {
    pub(crate) name: &'static str,
    pub(crate) items: Vec<T>,
}

/// Some items on one page, which may be longer than others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaf {
    id: u64,
    first: usize,
    count: usize,
    pages: u64,
}

/// A page over others.
struct Branch {
    id: u64,
    pages: u64,
    /// The first key below each child, and where the child stands.
    children: Vec<(Vec<u8>, u64)>,
}

struct Tree<T> {
    bucket: Bucket<T>,
    leaves: Vec<Leaf>,
    branches: Vec<Branch>,
    /// 0 where there is nothing.
    root: u64,
}

/// A file's layout.
pub(crate) struct Plan<T> {
    trees: Vec<Tree<T>>,
    /// The page that names the buckets.
    root: u64,
    pages: u64,
}

impl<T: Item> Plan<T> {
    /// Lays out the buckets, which are in the order of their names.
    pub(crate) fn new(buckets: Vec<Bucket<T>>) -> Self {
        let mut next = FIRST_DATA_PAGE;
        let trees: Vec<Tree<T>> = buckets.into_iter().map(|bucket| Tree::new(bucket, &mut next)).collect();
        let size: usize =
            trees.iter().map(|tree| ELEMENT + tree.bucket.name.len() + tree.reference().len()).sum();
        let pages = pages_of(PAGE_HEADER + size);
        Self { trees, root: next, pages: next + pages }
    }

    /// The file's length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.pages * PAGE as u64
    }

    /// The pages before all buckets.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(3 * PAGE);
        for transaction in 0..2_u64 {
            let start = out.len();
            header(&mut out, transaction, META_PAGE, 0, 0);
            let from = out.len();
            for number in [MAGIC, VERSION, page_size(), 0] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            // The root and its sequence, the list of free pages, the first page beyond, the transaction.
            for number in [self.root, 0, 2, self.pages, transaction] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            let sum = checksum(out.get(from..).unwrap_or_default());
            out.extend_from_slice(&sum.to_le_bytes());
            debug_assert_eq!(out.len() - from, META);
            out.resize(start + PAGE, 0);
        }
        header(&mut out, 2, FREE_LIST, 0, 0);
        out.resize(3 * PAGE, 0);
        out
    }

    /// What follows, page by page and in order: leaves, whose values are asked for, and the rest.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_, T>> {
        let trees = self.trees.iter().flat_map(|tree| {
            let leaves = tree.leaves.iter().map(move |leaf| Part::Leaf(LeafPart { tree, leaf }));
            leaves.chain(tree.branches.iter().map(|branch| Part::Whole(branch.page())))
        });
        trees.chain(std::iter::once_with(|| Part::Whole(self.root_page())))
    }

    fn root_page(&self) -> Vec<u8> {
        let names = self.trees.iter().map(|tree| tree.bucket.name.as_bytes().to_vec());
        let references: Vec<Vec<u8>> = self.trees.iter().map(Tree::reference).collect();
        let rows: Vec<(Vec<u8>, &[u8])> = names.zip(references.iter().map(Vec::as_slice)).collect();
        leaf_page(self.root, self.pages - self.root, IS_BUCKET, &rows)
    }
}

/// A piece of a file after its head.
pub(crate) enum Part<'a, T> {
    /// Items, whose values are not here.
    Leaf(LeafPart<'a, T>),
    /// Bytes as they stand.
    Whole(Vec<u8>),
}

/// A page of items.
pub(crate) struct LeafPart<'a, T> {
    tree: &'a Tree<T>,
    leaf: &'a Leaf,
}

impl<T: Item> LeafPart<'_, T> {
    /// The page's items.
    pub(crate) fn items(&self) -> &[T] {
        self.tree.bucket.items.get(self.leaf.first..self.leaf.first + self.leaf.count).unwrap_or_default()
    }

    /// The page with the items' values; `None` where they are not as long as was said.
    pub(crate) fn page<V: AsRef<[u8]>>(&self, values: &[V]) -> Option<Vec<u8>> {
        let items = self.items();
        let fit = items.len() == values.len()
            && items.iter().zip(values).all(|(item, value)| item.value_len() == value.as_ref().len());
        let rows: Vec<(Vec<u8>, &[u8])> =
            items.iter().map(Item::key).zip(values.iter().map(AsRef::as_ref)).collect();
        fit.then(|| leaf_page(self.leaf.id, self.leaf.pages, 0, &rows))
    }
}

impl<T: Item> Tree<T> {
    fn new(bucket: Bucket<T>, next: &mut u64) -> Self {
        let leaves = leaves(&bucket.items, next);
        let mut level: Vec<(Vec<u8>, u64)> = leaves
            .iter()
            .map(|leaf| (bucket.items.get(leaf.first).map(Item::key).unwrap_or_default(), leaf.id))
            .collect();
        let mut branches = Vec::new();
        while level.len() > 1 {
            let above = branches_over(level, next);
            level = above
                .iter()
                .filter_map(|branch| branch.children.first().map(|(key, _)| (key.clone(), branch.id)))
                .collect();
            branches.extend(above);
        }
        let root = level.first().map_or(0, |(_, id)| *id);
        Self { bucket, leaves, branches, root }
    }

    /// What the root has for this bucket: an empty one is a page within the value.
    fn reference(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BUCKET + PAGE_HEADER);
        out.extend_from_slice(&self.root.to_le_bytes());
        out.extend_from_slice(&0_u64.to_le_bytes());
        if self.root == 0 {
            header(&mut out, 0, LEAF, 0, 0);
        }
        out
    }
}

impl Branch {
    fn page(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAGE);
        header(&mut out, self.id, BRANCH, self.children.len(), self.pages - 1);
        let mut data = self.children.len() * ELEMENT;
        for (key, child) in &self.children {
            number(&mut out, data);
            number(&mut out, key.len());
            out.extend_from_slice(&child.to_le_bytes());
            data = data + key.len() - ELEMENT;
        }
        self.children.iter().for_each(|(key, _)| out.extend_from_slice(key));
        fill(out, self.pages)
    }
}

/// Puts items onto pages one after the other, as many as fit.
fn leaves<T: Item>(items: &[T], next: &mut u64) -> Vec<Leaf> {
    let sizes = items.iter().map(|item| ELEMENT + item.key().len() + item.value_len());
    pack(sizes)
        .into_iter()
        .map(|Run { first, count, pages }| {
            let id = *next;
            *next += pages;
            Leaf { id, first, count, pages }
        })
        .collect()
}

fn branches_over(level: Vec<(Vec<u8>, u64)>, next: &mut u64) -> Vec<Branch> {
    let runs = pack(level.iter().map(|(key, _)| ELEMENT + key.len()));
    let mut children = level.into_iter();
    runs.into_iter()
        .map(|Run { count, pages, .. }| {
            let id = *next;
            *next += pages;
            Branch { id, pages, children: children.by_ref().take(count).collect() }
        })
        .collect()
}

/// Neighbours that share a page.
struct Run {
    first: usize,
    count: usize,
    pages: u64,
}

/// Cuts a row of sizes into pages. What is larger than a page has one of its own that is longer.
fn pack(sizes: impl Iterator<Item = usize>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut used = 0;
    for (index, size) in sizes.enumerate() {
        match runs.last_mut() {
            Some(run) if used + size <= PAGE => {
                run.count += 1;
                used += size;
            }
            _ => {
                used = PAGE_HEADER + size;
                runs.push(Run { first: index, count: 1, pages: pages_of(used) });
            }
        }
    }
    runs
}

fn pages_of(bytes: usize) -> u64 {
    bytes.div_ceil(PAGE) as u64
}

fn page_size() -> u32 {
    u32::try_from(PAGE).unwrap_or(u32::MAX)
}

fn leaf_page(id: u64, pages: u64, flags: u32, rows: &[(Vec<u8>, &[u8])]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PAGE);
    header(&mut out, id, LEAF, rows.len(), pages - 1);
    let mut data = rows.len() * ELEMENT;
    for (key, value) in rows {
        out.extend_from_slice(&flags.to_le_bytes());
        number(&mut out, data);
        number(&mut out, key.len());
        number(&mut out, value.len());
        data = data + key.len() + value.len() - ELEMENT;
    }
    for (key, value) in rows {
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    fill(out, pages)
}

fn header(out: &mut Vec<u8>, id: u64, flags: u16, count: usize, overflow: u64) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    // A page of 4 KiB has room for 255 items at the most.
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&u32::try_from(overflow).unwrap_or(u32::MAX).to_le_bytes());
}

/// Lengths here are far below 4 GiB: those of keys and values that the store took.
fn number(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

fn fill(mut out: Vec<u8>, pages: u64) -> Vec<u8> {
    let whole = usize::try_from(pages).unwrap_or(usize::MAX).saturating_mul(PAGE);
    debug_assert!(out.len() <= whole);
    out.resize(whole, 0);
    out
}
