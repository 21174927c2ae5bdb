//! Account, Region, Arn, names and ids. Pure.
