//! Numbers that follow from a seed, and the keys made of them.

/// A generator of numbers (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

pub(crate) fn key(number: u64) -> Vec<u8> {
    format!("user{number:012}").into_bytes()
}
