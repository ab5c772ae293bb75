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

/// 97.5th percentile of Student's t distribution for 1, 2, ... degrees of freedom.
const T_QUANTILES: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// The same for more: that of the normal distribution.
const NORMAL_QUANTILE: f64 = 1.960;

fn t_quantile(freedom: usize) -> f64 {
    let known = T_QUANTILES.get(freedom - 1);
    known.copied().unwrap_or(NORMAL_QUANTILE)
}

/// A series of measurements.
#[derive(Debug, Clone, Default, PartialEq)]
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

    /// All of them in the order in which they came.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.0
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

    /// Share of the measurements that do not exceed a value, for up to 200 values: what a curve of
    /// the distribution is drawn from.
    #[must_use]
    pub fn distribution(&self) -> Vec<(f64, f64)> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let step = sorted.len().div_ceil(200).max(1);
        let ranked = sorted.iter().enumerate().map(|(index, value)| {
            let share = count(index + 1) / count(sorted.len());
            (*value, share)
        });
        let last = sorted.len().saturating_sub(1);
        let is_kept = |index: usize| index.is_multiple_of(step) || index == last;
        let kept = ranked.enumerate().filter(|(index, _)| is_kept(*index));
        kept.map(|(_, point)| point).collect()
    }

    /// Share of the measurements at each whole number that occurs: the bars of a histogram.
    #[must_use]
    pub fn histogram(&self) -> Vec<(f64, f64)> {
        let mut sorted: Vec<f64> = self.0.iter().map(|value| value.round()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let runs = sorted.chunk_by(|a, b| a.total_cmp(b).is_eq());
        runs.map(|run| (run[0], count(run.len()) / count(sorted.len())))
            .collect()
    }

    /// Half the width of the 95 % interval of the mean (Student's t), for independent
    /// measurements; `None` for fewer than two.
    #[must_use]
    pub fn half_width(&self) -> Option<f64> {
        let mean = self.mean()?;
        let freedom = self.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
        let squares: f64 = self.0.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / count(freedom)).sqrt();
        Some(t_quantile(freedom) * deviation / count(self.len()).sqrt())
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
    fn the_interval_of_three_means_is_that_of_the_textbook() {
        let mut series = Series::default();
        assert_eq!(series.half_width(), None);
        series.add(1.0);
        assert_eq!(
            series.half_width(),
            None,
            "one mean says nothing about the spread"
        );
        series.add(2.0);
        series.add(3.0);
        let half_width = series.half_width().unwrap();
        assert!((half_width - 4.303 / 3.0_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn distributions_end_at_1_and_histograms_sum_to_1() {
        let mut series = Series::default();
        for value in 0..1000_u32 {
            series.add(f64::from(value % 4));
        }
        let distribution = series.distribution();
        assert!(distribution.len() <= 202);
        assert_eq!(distribution.last(), Some(&(3.0, 1.0)));
        let bars = series.histogram();
        assert_eq!(bars, [0.0, 1.0, 2.0, 3.0].map(|value| (value, 0.25)));
    }

    #[test]
    fn nothing_measured_gives_nothing() {
        let series = Series::default();
        assert_eq!((series.mean(), series.percentile(50)), (None, None));
        assert_eq!(share(1, 0), None);
        assert_eq!(share(1, 4), Some(0.25));
    }
}
