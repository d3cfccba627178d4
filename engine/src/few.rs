//! A list that is empty most of the time: shared and never changed, and no memory while there is nothing in it.

use std::ops::Deref;
use std::sync::Arc;

/// Some values, by reference; cloning is one count, and nothing at all of the empty list. One word, since a log has several of
/// these: the length stands with the values.
#[derive(Debug)]
pub(crate) struct Few<T>(Option<Arc<Box<[T]>>>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Few(None)
    }
}

impl<T> Clone for Few<T> {
    fn clone(&self) -> Self {
        Few(self.0.clone())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |values| &***values)
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(values: Vec<T>) -> Self {
        Few((!values.is_empty()).then(|| Arc::new(values.into_boxed_slice())))
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self::from(values.into_iter().collect::<Vec<T>>())
    }
}
