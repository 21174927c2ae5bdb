//! The name of one request, in its answer and in the log: a random UUID, as at AWS.

use gantry_env::Entropy;

pub(super) fn new_request_id(entropy: &dyn Entropy) -> String {
    let mut bytes = entropy.bytes16();
    // Version 4 (random) and the variant of RFC 9562.
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut id = hex::encode(bytes);
    for dash in [20, 16, 12, 8] {
        id.insert(dash, '-');
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_env::VirtualEnv;

    #[test]
    fn ids_are_random_uuids() {
        let env = VirtualEnv::seeded(1).env();
        let (one, two) = (new_request_id(&*env.entropy), new_request_id(&*env.entropy));
        assert_ne!(one, two);
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(one.as_bytes()[14], b'4');
    }
}
