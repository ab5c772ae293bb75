//! Means, shares and percentiles of what a run measured.
//!
//! Invariant: only additions, multiplications and divisions of 64-bit floats, in a fixed order: the
//! same figures on every machine.

use std::time::Duration;

/// A number as a float; exact below 2^53.
#[must_use]
pub const fn float(number: u64) -> f64 {
    number as f64
}

/// A count of elements as a float.
#[must_use]
pub const fn count(elements: usize) -> f64 {
    elements as f64
}

/// `part` of `whole`; `None` when there is no whole.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| float(part) / float(whole))
}

/// A series of measurements.
#[derive(Debug, Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds a measurement.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a duration in seconds.
    pub fn add_duration(&mut self, duration: Duration) {
        self.add(duration.as_secs_f64());
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was measured.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mean; `None` when nothing was measured.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.0.iter().sum::<f64>() / count(self.len()))
    }

    /// The smallest value that at least `percent` of 100 of the measurements do not exceed (nearest
    /// rank).
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    /// The greatest.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        self.percentile(100)
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> Option<f64> {
        self.percentile(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let mut series = Series::default();
        for value in [5.0, 1.0, 4.0, 2.0, 3.0] {
            series.add(value);
        }
        assert_eq!(series.mean(), Some(3.0));
        let percentiles = [0, 20, 21, 50, 99, 100].map(|percent| series.percentile(percent));
        assert_eq!(percentiles, [1.0, 1.0, 2.0, 3.0, 5.0, 5.0].map(Some));
    }

    #[test]
    fn nothing_measured_gives_nothing() {
        let series = Series::default();
        assert_eq!((series.mean(), series.percentile(50)), (None, None));
        assert_eq!(share(1, 0), None);
        assert_eq!(share(1, 4), Some(0.25));
    }
}
