//! A program's failure: a sentence, and exit code 1.

use std::{error::Error, fmt};

/// Any error. `main` returns it, and its words are printed instead of its structure.
pub struct Failure(Box<dyn Error + Send + Sync>);

impl Failure {
    /// A failure in the program's own words.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into().into())
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

/// The standard library prints this after `Error: ` when `main` fails.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, "\n  because {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
