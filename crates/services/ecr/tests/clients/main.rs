//! The registry behind the real server, with clients that nobody here wrote: skopeo, buildah and
//! the AWS CLI. And the registry as a process of its own, killed while uploads are under way.

mod aws;
mod crash;
mod process;
mod pushes;
mod serving;
