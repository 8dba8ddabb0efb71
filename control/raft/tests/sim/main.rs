//! x
mod disk;
mod hermetic;
mod history;
mod linear;
mod oracle;
