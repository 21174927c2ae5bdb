//! Transactional, watchable rows: memory and SQLite behind one trait.
