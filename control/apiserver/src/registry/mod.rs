//! The registry: objects kept in the store by general rules, with a strategy for each kind.

pub mod columns;
pub mod strategies;
pub mod strategy;
