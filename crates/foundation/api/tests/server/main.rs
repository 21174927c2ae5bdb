//! The server as clients meet it: on a real socket, with the aws CLI, boto3, our own client, and
//! bytes that no client would send.

mod calls;
mod clients;
mod limits;
mod parsers;
mod routes;
mod secure;
mod toy;
mod wire_shapes;
