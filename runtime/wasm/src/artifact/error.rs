//! Why a module could not be made ready to run.

/// Why a module could not be made ready to run. Cloned to everybody who waited for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// The node holds no such image (any more).
    #[error("no image {0} on this node")]
    NotFound(String),
    /// The compiler does not take the module: trying again does not help.
    #[error("the module does not compile: {0}")]
    Refused(String),
    /// The compiler failed, by its own fault or for want of memory.
    #[error("the compiler failed: {0}")]
    Compiler(String),
    /// The module's file cannot be read, or is not what it was.
    #[error("the image is damaged: {0}")]
    Damaged(String),
    /// The cache of compiled code cannot be used.
    #[error("{doing}: {why}")]
    Cache {
        /// What was being done.
        doing: String,
        /// What the system said.
        why: String,
    },
}

impl ArtifactError {
    /// The cache's directory failed.
    pub(super) fn cache(doing: &str) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let doing = doing.to_owned();
        move |error| Self::Cache { doing, why: error.to_string() }
    }
}
