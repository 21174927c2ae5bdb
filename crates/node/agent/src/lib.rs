//! Supervises tasks: the ECS agent protocol and the task lifecycle.
