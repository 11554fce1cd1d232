//! What a procedure gives back.

/// A procedure's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It is done: the caller gets these bytes.
    Done(Vec<u8>),
}

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Done(bytes)
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::Done(text.into_bytes())
    }
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        Self::Done(text.as_bytes().to_vec())
    }
}

impl From<()> for Answer {
    fn from((): ()) -> Self {
        Self::Done(Vec::new())
    }
}
