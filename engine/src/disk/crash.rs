//! Which crash states to try: all of them where they are few, a fixed choice of them where they are many.

use super::memory::Fate;

/// Up to this many units, every subset is tried.
const EXHAUSTIVE_MAX: usize = 10;

/// The smallest piece that a medium writes whole.
const SECTOR_BYTES: usize = 512;

/// The fates to try for `units` unsynced units: every subset up to ten of them; above, all, none, each one alone, each
/// one alone missing, every beginning, and `random` subsets drawn from `seed`.
#[must_use]
pub fn crash_choices(units: usize, random: usize, seed: u64) -> Vec<Vec<Fate>> {
    if units <= EXHAUSTIVE_MAX {
        return (0..1_usize << units)
            .map(|bits| (0..units).map(|unit| kept_if(bits >> unit & 1 == 1)).collect())
            .collect();
    }
    let mut choices: Vec<Vec<Fate>> = Vec::new();
    for chosen in 0..units {
        choices.push((0..units).map(|unit| kept_if(unit == chosen)).collect());
        choices.push((0..units).map(|unit| kept_if(unit != chosen)).collect());
        choices.push((0..units).map(|unit| kept_if(unit < chosen)).collect());
    }
    choices.push(vec![Fate::Kept; units]);
    let mut state = seed;
    for _ in 0..random {
        choices.push(
            (0..units)
                .map(|_| kept_if(next_random(&mut state) & 1 == 1))
                .collect(),
        );
    }
    choices
}

/// The fates in which all units survive but the last, a write of `bytes`, which is torn at each sector.
#[must_use]
pub fn torn_choices(units: usize, bytes: usize) -> Vec<Vec<Fate>> {
    let Some(others) = units.checked_sub(1) else {
        return Vec::new();
    };
    (1..bytes.div_ceil(SECTOR_BYTES))
        .map(|sectors| {
            let mut fates = vec![Fate::Kept; others];
            fates.push(Fate::Torn {
                bytes: sectors * SECTOR_BYTES,
            });
            fates
        })
        .collect()
}

fn kept_if(kept: bool) -> Fate {
    if kept { Fate::Kept } else { Fate::Lost }
}

/// SplitMix64: enough to draw subsets, and the same on every machine.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_units_are_tried_in_every_subset_and_many_in_a_fixed_choice() {
        assert_eq!(crash_choices(0, 64, 1), vec![Vec::new()]);
        let all = crash_choices(3, 64, 1);
        let distinct: std::collections::HashSet<String> =
            all.iter().map(|fates| format!("{fates:?}")).collect();
        assert_eq!((all.len(), distinct.len()), (8, 8));
        let many = crash_choices(20, 64, 1);
        assert_eq!(many.len(), 20 * 3 + 1 + 64);
        assert_eq!(many, crash_choices(20, 64, 1));
        assert_ne!(many, crash_choices(20, 64, 2));
        assert!(many.iter().all(|fates| fates.len() == 20));
    }

    #[test]
    fn a_torn_page_is_tried_at_every_sector() {
        let torn = torn_choices(2, 4096);
        assert_eq!(torn.len(), 7);
        assert_eq!(torn[0], vec![Fate::Kept, Fate::Torn { bytes: 512 }]);
        assert!(torn_choices(0, 4096).is_empty());
        assert!(torn_choices(1, 100).is_empty());
    }
}
