//! The AWS wire: protocols, SigV4, generated types, one trait a service.
