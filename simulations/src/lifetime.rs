//! How long things last: Weibull and log-normal durations, whole ones and what is left of them.
//!
//! A population in its steady state does not consist of fresh sessions. Whoever looks at a random
//! moment meets long sessions more often than short ones, in proportion to their length, and
//! somewhere in their middle: [`Lifetime::draw_running`] draws such a session.
//!
//! Invariant: only additions, multiplications, divisions and square roots of 64-bit floats in a
//! fixed order, all of which IEEE 754 defines to the last bit. No logarithm of a platform's
//! mathematics library decides when somebody leaves.

use std::f64::consts::LN_2;
use std::time::Duration;

use trackless::random::Random;

/// Longest duration that is drawn: a year. Ours: far beyond any run.
const LONGEST: f64 = 365.0 * 86_400.0;

/// How long something lasts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lifetime {
    /// Weibull: P(X > x) = exp(-(x / scale)^shape). With shape 1 it is exponential; measured
    /// sessions have shapes below 1, so that whoever has stayed long will stay longer.
    Weibull {
        /// Above 0.
        shape: f64,
        /// Seconds; 63 % of the durations are below it.
        scale: f64,
    },
    /// Log-normal: the logarithm is normal.
    LogNormal {
        /// Seconds; half of the durations are below it.
        median: f64,
        /// Standard deviation of the natural logarithm, 0 or more.
        sigma: f64,
    },
}

/// A session that was met at a random moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// How long it has lasted.
    pub age: Duration,
    /// How long it will go on.
    pub rest: Duration,
}

impl Lifetime {
    /// A Weibull lifetime of which half are shorter than `median`.
    #[must_use]
    pub fn weibull(shape: f64, median: Duration) -> Self {
        let scale = median.as_secs_f64() / power(LN_2, 1.0 / shape);
        Self::Weibull { shape, scale }
    }

    /// An exponential lifetime: how long it has lasted says nothing about its rest.
    #[must_use]
    pub const fn exponential(mean: Duration) -> Self {
        Self::Weibull {
            shape: 1.0,
            scale: mean.as_secs_f64(),
        }
    }

    /// The mean in seconds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match *self {
            Self::Weibull { shape, scale } => scale * gamma(1.0 + 1.0 / shape),
            Self::LogNormal { median, sigma } => median * exponential(sigma * sigma / 2.0),
        }
    }

    /// A whole lifetime.
    pub fn draw(&self, random: &mut Random) -> Duration {
        seconds(match *self {
            Self::Weibull { shape, scale } => scale * power(draw_exponential(random), 1.0 / shape),
            Self::LogNormal { median, sigma } => median * exponential(sigma * draw_normal(random)),
        })
    }

    /// A lifetime met at a random moment: chosen in proportion to its length, at a random place in
    /// it.
    pub fn draw_running(&self, random: &mut Random) -> Running {
        let whole = match *self {
            // (X / scale)^shape is exponential; weighted by the length X it is a gamma variable.
            Self::Weibull { shape, scale } => {
                scale * power(draw_gamma(random, 1.0 + 1.0 / shape), 1.0 / shape)
            }
            Self::LogNormal { median, sigma } => {
                median * exponential(sigma * (sigma + draw_normal(random)))
            }
        };
        let age = whole * draw_unit(random);
        Running {
            age: seconds(age),
            rest: seconds(whole - age),
        }
    }
}

/// Seconds as a duration, at most [`LONGEST`].
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, LONGEST))
}

/// A number above 0 and at most 1, in steps of 2^-53.
fn draw_unit(random: &mut Random) -> f64 {
    let steps = (random.next_u64() >> 11) + 1;
    steps as f64 / (1_u64 << 53) as f64
}

/// An exponential variable of mean 1.
fn draw_exponential(random: &mut Random) -> f64 {
    -logarithm(draw_unit(random))
}

/// A standard normal variable (Marsaglia's polar method).
fn draw_normal(random: &mut Random) -> f64 {
    loop {
        let (x, y) = (2.0 * draw_unit(random) - 1.0, 2.0 * draw_unit(random) - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * logarithm(square) / square).sqrt();
        }
    }
}

/// A gamma variable of this shape, at least 1, and scale 1 (Marsaglia and Tsang 2000).
fn draw_gamma(random: &mut Random, shape: f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let normal = draw_normal(random);
        let root = 1.0 + c * normal;
        if root <= 0.0 {
            continue;
        }
        let cube = root * root * root;
        let limit = normal * normal / 2.0 + d * (1.0 - cube + logarithm(cube));
        if logarithm(draw_unit(random)) < limit {
            return d * cube;
        }
    }
}

/// The natural logarithm of a positive normal number; that of 0 stands for the smallest of them.
fn logarithm(number: f64) -> f64 {
    const FRACTION: u64 = (1 << 52) - 1;
    const ONE: u64 = 0x3ff << 52;
    let bits = number.max(f64::MIN_POSITIVE).to_bits();
    let exponent = u32::try_from(bits >> 52).expect("the sign is 0, so eleven bits are left");
    let mut exponent = f64::from(exponent) - 1_023.0;
    let mut mantissa = f64::from_bits(bits & FRACTION | ONE);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1.0;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)); the argument is below 0.172, so eleven terms do.
    let base = (mantissa - 1.0) / (mantissa + 1.0);
    let square = base * base;
    let sum = (0..11).rev().fold(0.0, |sum, term| {
        sum * square + 1.0 / f64::from(2 * term + 1)
    });
    exponent * LN_2 + 2.0 * base * sum
}

/// e to a power between -700 and 700.
fn exponential(power: f64) -> f64 {
    let (mut small, mut halvings) = (power.clamp(-700.0, 700.0), 0);
    while small.abs() > 0.25 {
        small /= 2.0;
        halvings += 1;
    }
    let sum = (1..=14)
        .rev()
        .fold(1.0, |sum, term| 1.0 + sum * small / f64::from(term));
    (0..halvings).fold(sum, |value, _| value * value)
}

/// A number of 0 or more to a power.
fn power(number: f64, power: f64) -> f64 {
    exponential(power * logarithm(number))
}

/// The gamma function of a number of at least 1 (Lanczos' approximation with g = 5, six terms).
fn gamma(number: f64) -> f64 {
    const TERMS: [f64; 6] = [
        76.180_091_729_471_46,
        -86.505_320_329_416_77,
        24.014_098_240_830_91,
        -1.231_739_572_450_155,
        0.001_208_650_973_866_179,
        -0.000_005_395_239_384_953,
    ];
    let base = number + 5.5;
    let series = (1..)
        .zip(TERMS)
        .fold(1.000_000_000_190_015, |sum, (step, term)| {
            sum + term / (number + f64::from(step))
        });
    let root = 2.506_628_274_631_000_5;
    exponential((number + 0.5) * logarithm(base) - base) * root * series / number
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws so many, in seconds.
    fn draws(count: usize, mut draw: impl FnMut(&mut Random) -> Duration) -> Vec<f64> {
        let mut random = Random::from_seed(3);
        (0..count)
            .map(|_| draw(&mut random).as_secs_f64())
            .collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[track_caller]
    fn check_close(value: f64, wanted: f64, tolerance: f64) {
        let error = (value / wanted - 1.0).abs();
        assert!(error <= tolerance, "{value} instead of {wanted}");
    }

    /// The shape that makes a Weibull sample most likely, by bisection.
    fn fitted_shape(sample: &[f64]) -> f64 {
        let logs: Vec<f64> = sample.iter().map(|value| value.ln()).collect();
        let excess = |shape: f64| {
            let weights: Vec<f64> = sample.iter().map(|value| value.powf(shape)).collect();
            let weighted: f64 = weights.iter().zip(&logs).map(|(w, log)| w * log).sum();
            weighted / weights.iter().sum::<f64>() - 1.0 / shape - mean(&logs)
        };
        let (mut low, mut high) = (0.05, 5.0);
        for _ in 0..30 {
            let middle = (low + high) / 2.0;
            if excess(middle) < 0.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    #[test]
    fn functions_agree_with_those_of_the_platform() {
        for number in [1e-300, 1e-9, 0.3, 0.999, 1.0, 1.5, 2.0, 77.7, 1e12] {
            assert!((logarithm(number) - number.ln()).abs() < 1e-13 * number.ln().abs().max(1.0));
        }
        for number in [-50.0, -3.3, -0.1, 0.0, 0.2, 1.0, 20.5, 300.0] {
            check_close(exponential(number), number.exp(), 1e-12);
        }
        for (number, wanted) in [(1.0, 1.0), (1.5, 0.886_226_925), (3.0, 2.0), (4.0, 6.0)] {
            check_close(gamma(number), wanted, 1e-8);
        }
    }

    #[test]
    fn weibull_sessions_refit_to_the_parameters_they_were_drawn_with() {
        for wanted in [0.38, 0.5, 0.6, 1.0] {
            let lifetime = Lifetime::weibull(wanted, Duration::from_secs(900));
            let mut sample = draws(100_000, |random| lifetime.draw(random));
            // A duration has whole microseconds; a logarithm needs at least one.
            sample.iter_mut().for_each(|value| *value = value.max(1e-6));
            check_close(fitted_shape(&sample), wanted, 0.02);
            sample.sort_unstable_by(f64::total_cmp);
            check_close(sample[sample.len() / 2], 900.0, 0.03);
        }
    }

    #[test]
    fn log_normal_sessions_have_their_median_mean_and_sigma() {
        let lifetime = Lifetime::LogNormal {
            median: 600.0,
            sigma: 1.2,
        };
        let sample = draws(200_000, |random| lifetime.draw(random));
        let logs: Vec<f64> = sample.iter().map(|value| value.ln()).collect();
        let center = mean(&logs);
        let squares: Vec<f64> = logs.iter().map(|log| (log - center).powi(2)).collect();
        check_close(center.exp(), 600.0, 0.02);
        check_close(mean(&squares).sqrt(), 1.2, 0.02);
        check_close(mean(&sample), lifetime.mean(), 0.03);
    }

    #[test]
    fn a_mean_is_the_closed_form() {
        let hour = Duration::from_secs(3_600);
        check_close(Lifetime::exponential(hour).mean(), 3_600.0, 1e-8);
        // Shape 0.5: Gamma(3) = 2.
        let half = Lifetime::Weibull {
            shape: 0.5,
            scale: 1_800.0,
        };
        check_close(half.mean(), 3_600.0, 1e-8);
    }

    #[test]
    fn age_and_rest_of_a_running_session_have_the_means_of_the_equilibrium() {
        // Both have mean E[X^2] / 2 E[X].
        let shape = 0.6;
        let weibull = Lifetime::Weibull { shape, scale: 1.0 };
        let square = gamma(1.0 + 2.0 / shape);
        let normal = Lifetime::LogNormal {
            median: 1.0,
            sigma: 0.8,
        };
        let cases = [
            (weibull, square / (2.0 * weibull.mean()), 0.03),
            (
                normal,
                (2.0 * 0.8_f64.powi(2)).exp() / (2.0 * normal.mean()),
                0.03,
            ),
            // Of an exponential session the rest is as long as a new one.
            (Lifetime::exponential(Duration::from_secs(60)), 60.0, 0.02),
        ];
        for (lifetime, wanted, tolerance) in cases {
            let rests = draws(200_000, |random| lifetime.draw_running(random).rest);
            let ages = draws(200_000, |random| lifetime.draw_running(random).age);
            check_close(mean(&rests), wanted, tolerance);
            check_close(mean(&ages), wanted, tolerance);
        }
    }

    #[test]
    fn draws_are_the_same_on_every_machine() {
        let mut random = Random::from_seed(1);
        let hour = Duration::from_secs(3_600);
        let drawn = [
            Lifetime::weibull(0.5, hour).draw(&mut random),
            Lifetime::weibull(0.38, hour).draw_running(&mut random).rest,
        ];
        let micros = drawn.map(|duration| duration.as_micros());
        assert_eq!(micros, [6_206_200_470, 48_285_956_602]);
    }
}
