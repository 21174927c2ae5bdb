//! Repositories, images and the OCI registry.
