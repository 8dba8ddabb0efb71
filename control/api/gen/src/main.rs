//! Generates the schema table.
fn main() {}
