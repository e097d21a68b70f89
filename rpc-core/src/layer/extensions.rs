//! [`Extensions`]: values that layers leave for others, by their types.

use std::{
    any::{Any, TypeId},
    fmt,
    sync::Arc,
};

/// Values that layers leave for other layers and for the handler, one of each type: the authenticated user, for example.
///
/// A server's layer [inserts](Self::insert) one in [`Request::extensions_mut`](super::Request::extensions_mut), and the handler reads
/// it with [`Context::extensions`](crate::Context::extensions). They do not travel. A clone is cheap, and what is inserted into it
/// later is not in the original.
///
/// ```
/// use rpc_core::layer::Extensions;
///
/// #[derive(Debug, PartialEq)]
/// struct User(&'static str);
///
/// let mut extensions = Extensions::default();
/// assert_eq!(extensions.insert(User("ada")), None);
/// assert_eq!(extensions.get::<User>(), Some(&User("ada")));
/// assert_eq!(extensions.get::<u32>(), None);
/// ```
#[derive(Clone, Default)]
pub struct Extensions(Vec<(TypeId, Arc<dyn Any + Send + Sync>)>);

impl Extensions {
    /// None.
    pub(crate) const NONE: &'static Self = &Self(Vec::new());

    /// The value of this type.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let (_, value) = self.0.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        value.downcast_ref()
    }

    /// Adds a value; returns the earlier one of its type, unless a clone has it, too.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) -> Option<T> {
        let earlier = self.remove();
        self.0.push((TypeId::of::<T>(), Arc::new(value)));
        earlier
    }

    /// Removes the value of this type; returns it, unless a clone has it, too.
    pub fn remove<T: Send + Sync + 'static>(&mut self) -> Option<T> {
        let at = self.0.iter().position(|(id, _)| *id == TypeId::of::<T>())?;
        let (_, value) = self.0.swap_remove(at);
        Arc::into_inner(value.downcast().ok()?)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value may be a secret.
        f.debug_struct("Extensions").field("len", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_each_type_is_kept_and_a_clone_has_its_own() {
        let mut extensions = Extensions::default();
        assert!(extensions.is_empty());
        assert_eq!(extensions.insert(1_u32), None);
        assert_eq!(extensions.insert("a"), None);
        assert_eq!(extensions.insert(2_u32), Some(1));
        let mut clone = extensions.clone();
        assert_eq!(clone.insert(3_u32), None, "the original has it, too");
        assert_eq!((extensions.get(), clone.get()), (Some(&2_u32), Some(&3_u32)));
        assert_eq!(clone.remove::<u32>(), Some(3));
        assert_eq!((clone.get::<u32>(), clone.get()), (None, Some(&"a")));
        assert_eq!(format!("{extensions:?}"), "Extensions { len: 2 }");
    }
}
