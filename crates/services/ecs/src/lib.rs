//! Clusters, task definitions, tasks and container instances.
