//! Sizes of frames.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use serde::{Serialize, Serializer};

use crate::reference::Random;

/// Smallest and largest frame that there is a packet for.
const SIZES: RangeInclusive<usize> = 64..=1800;

/// Sizes in bytes and how many of twelve packets have each: a simple mix of what the Internet is said to carry ("IMIX", 7:4:1).
const IMIX: [(usize, u32); 3] = [(64, 7), (570, 4), (1400, 1)];
const TWELVE: u32 = IMIX[0].1 + IMIX[1].1 + IMIX[2].1;

/// The sizes of a run's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// All have as many bytes.
    Bytes(usize),
    /// Of each packet drawn at random, in the shares of the mix.
    Imix,
}

impl Size {
    /// The size of the next frame, `least` at least.
    pub(crate) fn draw(self, least: usize, random: &mut Random) -> usize {
        let size = match self {
            Self::Bytes(bytes) => bytes,
            Self::Imix => {
                let mut drawn = random.below(TWELVE);
                let fits = IMIX.iter().find(|(_, share)| {
                    let here = drawn < *share;
                    drawn = drawn.wrapping_sub(*share);
                    here
                });
                fits.map_or(0, |(size, _)| *size)
            }
        };
        size.max(least)
    }

    /// Bytes of the largest frame.
    pub(crate) fn largest(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Imix => IMIX.iter().map(|(size, _)| *size).max().unwrap_or(0),
        }
    }

    /// Bytes of a frame, of which none has less than `least`: the mean of many.
    pub(crate) fn mean(self, least: usize) -> f64 {
        match self {
            Self::Bytes(bytes) => bytes.max(least) as f64,
            Self::Imix => {
                let sum: f64 =
                    IMIX.iter().map(|(size, share)| (*size).max(least) as f64 * f64::from(*share)).sum();
                sum / f64::from(TWELVE)
            }
        }
    }
}

impl FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if text == "imix" {
            return Ok(Self::Imix);
        }
        let (first, last) = (SIZES.start(), SIZES.end());
        let bytes = text.parse().with_context(|| format!("{first} to {last} bytes, or imix"))?;
        if !SIZES.contains(&bytes) {
            bail!("{bytes} is not in {first} to {last}");
        }
        Ok(Self::Bytes(bytes))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes} B"),
            Self::Imix => f.write_str("imix"),
        }
    }
}

impl Serialize for Size {
    /// A number of bytes, or the word.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes as u64),
            Self::Imix => serializer.serialize_str("imix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_has_its_shares_and_its_mean() {
        let mut random = Random(3);
        let drawn: Vec<usize> = (0..24_000).map(|_| Size::Imix.draw(64, &mut random)).collect();
        let of = |size| drawn.iter().filter(|drawn| **drawn == size).count();
        let counts = [of(64), of(570), of(1400)];
        assert_eq!(counts.iter().sum::<usize>(), 24_000);
        for (count, wanted) in counts.into_iter().zip([14_000_usize, 8_000, 2_000]) {
            assert!(count.abs_diff(wanted) < 500, "{counts:?}");
        }
        assert_eq!((Size::Imix.mean(64), Size::Bytes(354).mean(64)), (344.0, 354.0));
        assert_eq!((Size::Imix.mean(70), Size::Bytes(64).draw(70, &mut random)), (347.5, 70));
    }

    #[test]
    fn sizes_are_numbers_in_range_or_the_word() {
        assert_eq!("imix".parse::<Size>().unwrap(), Size::Imix);
        assert_eq!("1800".parse::<Size>().unwrap(), Size::Bytes(1800));
        for wrong in ["63", "1801", "", "IMIX", "-1", "64 "] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
