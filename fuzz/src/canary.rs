//! A decoder with a planted mistake, to see that the harness finds mistakes.

/// Reads a list of lengths and bytes, and trusts one length that it should not.
///
/// # Panics
/// On inputs that begin with a length of 0x7F and have fewer bytes than that: the harness must find one.
pub fn wrong_decoder(input: &[u8]) {
    let mut rest = input;
    while let Some((length, behind)) = rest.split_first() {
        let length = usize::from(*length);
        if length == 0x7F {
            // The planted mistake: no look at how many bytes remain.
            rest = &behind[length..];
        } else {
            rest = behind.get(length..).unwrap_or_default();
        }
    }
}
