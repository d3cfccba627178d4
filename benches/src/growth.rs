//! How fast a cost grows: the exponent of the power of `x` that fits it best.

/// How a cost grew over the last decade of what it was measured against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Cost goes as `x` to this power: 0 is flat, 1 is linear.
    pub exponent: f64,
    /// The power that a cost which goes as the logarithm of `x` would seem to have over the same points.
    pub logarithmic: f64,
}

/// What noise adds to an exponent: a cost that is a tenth to a third higher ten times further on.
const MARGIN: f64 = 0.15;

impl Growth {
    /// Fits the points whose `x` is at least a tenth of the greatest, or the last two; they come by `x`, ascending. `None`
    /// if there are less than two, or one is not above zero.
    #[must_use]
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let (greatest, _) = points.last()?;
        let begin = points.iter().position(|(x, _)| *x >= greatest / 10.0)?;
        let last = &points[begin.min(points.len().checked_sub(2)?)..];
        if last.iter().any(|(x, y)| *x <= 0.0 || *y <= 0.0) {
            return None;
        }
        // At 1 a logarithm is zero; a tree of one entry still has one level.
        let levels = |x: f64| (1.0 + x).log2();
        let logarithms: Vec<_> = last.iter().map(|(x, _)| (*x, levels(*x))).collect();
        Some(Growth {
            exponent: slope(last)?,
            logarithmic: slope(&logarithms)?,
        })
    }

    /// Whether it grew clearly faster than a logarithm.
    #[must_use]
    pub fn is_worse_than_logarithmic(&self) -> bool {
        self.exponent > self.logarithmic + MARGIN
    }
}

/// Of the straight line through the logarithms of the points with the least squares.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let flat: Vec<_> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let middle = |of: fn(&(f64, f64)) -> f64| flat.iter().map(of).sum::<f64>() / count;
    let (middle_x, middle_y) = (middle(|point| point.0), middle(|point| point.1));
    let width: f64 = flat.iter().map(|(x, _)| (x - middle_x).powi(2)).sum();
    let together: f64 = flat.iter().map(|(x, y)| (x - middle_x) * (y - middle_y)).sum();
    (width > 0.0).then(|| together / width)
}

#[cfg(test)]
mod tests {
    use super::Growth;

    fn growth(cost: impl Fn(f64) -> f64) -> Growth {
        let points: Vec<_> = [1.0, 10.0, 100.0, 300.0, 1_000.0]
            .iter()
            .map(|x| (*x, cost(*x)))
            .collect();
        Growth::of(&points).unwrap()
    }

    #[test]
    fn a_power_is_found_as_its_exponent() {
        assert!(growth(|_| 7.0).exponent.abs() < 1e-9);
        assert!((growth(|x| 3.0 * x).exponent - 1.0).abs() < 1e-9);
        assert!((growth(|x| x.sqrt()).exponent - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_logarithm_passes_and_a_root_does_not() {
        assert!(!growth(|x| 5.0 * (1.0 + x).log2()).is_worse_than_logarithmic());
        assert!(growth(f64::sqrt).is_worse_than_logarithmic());
    }

    #[test]
    fn only_the_last_decade_counts() {
        let bent = growth(|x| if x < 100.0 { 100.0 } else { x });
        assert!((bent.exponent - 1.0).abs() < 1e-9);
    }

    #[test]
    fn wide_steps_are_fitted_by_the_last_two_points() {
        let growth = Growth::of(&[(1.0, 9.0), (100.0, 9.0), (10_000.0, 900.0)]).unwrap();
        assert!((growth.exponent - 1.0).abs() < 1e-9);
    }

    #[test]
    fn too_few_points_and_costs_of_nothing_have_no_growth() {
        assert_eq!(Growth::of(&[]), None);
        assert_eq!(Growth::of(&[(1.0, 1.0)]), None);
        assert_eq!(Growth::of(&[(1.0, 0.0), (2.0, 1.0)]), None);
        assert_eq!(Growth::of(&[(2.0, 1.0), (2.0, 3.0)]), None);
    }
}
