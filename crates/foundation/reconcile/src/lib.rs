//! The one driver of every controller.
