//! Ages and remaining times, as people and JSON read them.

use std::fmt;
use std::time::Duration;

/// `00:08:37`, and from a day on `1d02h`.
pub(super) struct Clock(pub(super) Duration);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
        if days > 0 {
            return f.pad(&format!("{days}d{hours:02}h"));
        }
        f.pad(&format!("{hours:02}:{minutes:02}:{:02}", seconds % 60))
    }
}

/// What remains, or `never`.
pub(super) fn expiry(remaining: Option<Duration>) -> String {
    remaining.map_or_else(|| "never".to_owned(), |d| Clock(d).to_string())
}

/// The time of day (UTC) of a moment in microseconds since 1970: `01:02:03.000004`.
pub(crate) fn of_day(time_us: u64) -> String {
    let (seconds, micros) = (time_us / 1_000_000, time_us % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06}")
}

/// Serde of a duration as seconds with a fraction.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// As [`seconds`], of what may be missing.
pub(crate) mod maybe_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    // Serde says so: `serialize_with` of a field takes a reference to the field.
    #[allow(clippy::ref_option)]
    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(|d| d.as_secs_f64()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<f64>::deserialize(deserializer)?
            .map(|s| Duration::try_from_secs_f64(s).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_counts_to_a_day_and_then_in_days() {
        let clock = |s| Clock(Duration::from_secs(s)).to_string();
        assert_eq!([clock(0), clock(517), clock(86_399)], ["00:00:00", "00:08:37", "23:59:59"]);
        assert_eq!(clock(86_400 + 7200 + 59), "1d02h");
        assert_eq!(expiry(None), "never");
    }
}
