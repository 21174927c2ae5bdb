//! Where a task goes: constraints, strategies, fit. Pure.
