//! Sizes, durations and addresses as a user types them.

use std::time::Duration;

use crate::announce::{TrackerUrl, UrlError};

/// The longest duration that is accepted: a hundred years. Clocks cannot count much further.
const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads `90s`, `15m`, `2h`, `1d`, `500ms`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no duration, try 90s"))?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3_600.0,
        "d" => number * 86_400.0,
        _ => return Err(format!("`{unit}` is no unit of time, use ms, s, m, h or d")),
    };
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|&duration| duration <= DURATION_MAX)
        .ok_or_else(|| format!("`{text}` is out of range"))
}

/// Why text is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SizeError {
    /// It is none at all, or out of range.
    NoSize,
    /// The unit is not known.
    Unit(String),
    /// It has no unit, and a fraction.
    Fraction,
}

/// Reads `512KiB`, `10MiB`, `1.5GiB`; `K`, `M`, `G`, `T` mean the same, a bare number is bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    bytes(text).map_err(|error| match error {
        SizeError::NoSize => format!("`{text}` is no size, try 256KiB"),
        SizeError::Unit(unit) => {
            format!("`{unit}` is no unit of size, use KiB, MiB, GiB or TiB")
        }
        SizeError::Fraction => fraction(text),
    })
}

/// What to say about a number that would cut a byte in parts.
fn fraction(text: &str) -> String {
    let (number, _) = split(text);
    format!("`{number}` is a fraction of a byte; with a unit it makes sense: {number}MiB")
}

/// Reads a number of bytes. A fraction of a larger unit is rounded down to whole bytes.
fn bytes(text: &str) -> Result<u64, SizeError> {
    let (number, unit) = split(text);
    let unit_bytes: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(SizeError::Unit(unit.to_owned())),
    };
    let parts = number.split_once('.').unwrap_or((number, "0"));
    let bytes = scaled(parts, unit_bytes).ok_or(SizeError::NoSize)?;
    let is_whole = parts.1.bytes().all(|digit| digit == b'0');
    if unit_bytes == 1 && !is_whole {
        return Err(SizeError::Fraction);
    }
    Ok(bytes)
}

/// Reads a rate: a size, with or without `/s` behind it, and not 0.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    let number = text.trim();
    let number = number.strip_suffix("/s").unwrap_or(number);
    match bytes(number) {
        Ok(0) => Err("a rate of 0 would let nothing through".to_owned()),
        Ok(rate) => Ok(rate),
        Err(SizeError::Fraction) => Err(fraction(number)),
        Err(SizeError::NoSize | SizeError::Unit(_)) => {
            Err(format!("`{text}` is no rate, try 512KiB or 10MiB/s"))
        }
    }
}

/// Reads how many times something is meant: a number above 0.
pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        // Some programs take it for "no limit" and others for "at once": nobody shall guess.
        Ok(0.0) => Err(
            "a ratio of 0 says nothing: leave it away for no such bound; with `get`, use --seed \
             to seed without end"
                .to_owned(),
        ),
        Ok(ratio) if ratio.is_finite() && ratio > 0.0 => Ok(ratio),
        _ => Err(format!("`{text}` is no ratio above 0, try 1.5")),
    }
}

/// Reads what a switch may be set to.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err(format!(
            "`{text}` is neither true nor false (yes and no, on and off, 1 and 0 are taken too)"
        )),
    }
}

/// `whole.fraction` times `unit`, rounded down.
fn scaled((whole, fraction): (&str, &str), unit: u64) -> Option<u64> {
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction
        .parse::<u128>()
        .ok()?
        .checked_mul(u128::from(unit))?
        / scale;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Reads `HOST:PORT`, where HOST is a name, an IPv4 address or an IPv6 address in brackets.
pub(crate) fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

/// Reads the URLs of one tier of trackers, commas between them, each one that this program understands itself.
pub(crate) fn tracker_tier(text: &str) -> Result<String, String> {
    for url in text.split(',') {
        // What no stranger's torrent may have us ask is the user's own business.
        if TrackerUrl::parse(url) == Err(UrlError::Unsupported) {
            return Err(format!(
                "`{url}` is no tracker URL: http://HOST/announce, https://HOST/announce or udp://HOST:PORT"
            ));
        }
    }
    Ok(text.to_owned())
}

/// Splits a number from the unit behind it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1_500)));
        assert!(duration("-1s").is_err() && duration("1y").is_err() && duration("").is_err());
        assert!(duration("9999999999999999999s").is_err());
    }

    #[test]
    fn trackers_are_http_https_and_udp_urls() {
        for tier in [
            "http://t.example/announce",
            "https://t.example/announce?key=1",
            "udp://t.example:6969",
            "udp://t.example:6969,http://192.168.1.1:8080/mine",
        ] {
            assert_eq!(tracker_tier(tier).as_deref(), Ok(tier));
        }
        for wrong in [
            "",
            "hello",
            "wss://t.example/announce",
            "udp://t.example",
            "udp://t.example:1,",
        ] {
            assert!(tracker_tier(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two() {
        assert_eq!(size("16KiB"), Ok(16_384));
        assert_eq!(size("1.5 MiB"), Ok(3 << 19));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!(size("7"), Ok(7));
        for wrong in [
            "",
            "1KB",
            "x",
            "99999999999999999999",
            "99999999999TiB",
            "1..5M",
            "-1",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_sizes_a_second() {
        assert_eq!(rate("512KiB"), Ok(512 << 10));
        assert_eq!(rate("10 MiB/s"), Ok(10 << 20));
        for wrong in ["0", "0B/s", "fast", "10MiB/h", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ratios_are_numbers_above_0() {
        assert_eq!(ratio("1.5"), Ok(1.5));
        for wrong in ["-1", "inf", "NaN", "much", ""] {
            let why = ratio(wrong).unwrap_err();
            assert!(why.contains("is no ratio above 0"), "{wrong}: {why}");
        }
        for zero in ["0", "0.0", "-0"] {
            let why = ratio(zero).unwrap_err();
            assert!(why.contains("--seed"), "{zero}: {why}");
        }
    }

    #[test]
    fn switches_are_true_or_false() {
        for text in ["true", "Yes", "on", "1"] {
            assert_eq!(switch(text), Ok(true), "{text}");
        }
        for text in ["false", "no", "OFF", "0"] {
            assert_eq!(switch(text), Ok(false), "{text}");
        }
        let why = switch("maybe").unwrap_err();
        assert!(
            why.starts_with("`maybe` is neither true nor false"),
            "{why}"
        );
    }

    #[test]
    fn a_fraction_of_a_byte_is_refused_and_one_of_a_larger_unit_is_not() {
        assert_eq!(
            rate("2.5").unwrap_err(),
            "`2.5` is a fraction of a byte; with a unit it makes sense: 2.5MiB"
        );
        assert!(rate("2.5/s").unwrap_err().contains("2.5MiB"));
        assert!(size("0.1").is_err() && size("7.25B").is_err());
        assert_eq!(size("2.0"), Ok(2));
        assert_eq!(size("0.1KiB"), Ok(102));
    }

    #[test]
    fn hosts_have_a_port() {
        assert_eq!(
            host_and_port("a.example:6881"),
            Ok(("a.example".to_owned(), 6881))
        );
        assert_eq!(host_and_port("[::1]:1"), Ok(("::1".to_owned(), 1)));
        for wrong in ["a", ":1", "a:0", "a:65536", "a:"] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }
}
