//! Lists that may not have come: to every rule, absent and empty are the same.

pub fn items<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}
