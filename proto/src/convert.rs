//! The model as protobuf, and back. Down (`From`) always works; up (`TryFrom`) refuses with the path of the field.
//!
//! Most messages are their model type field by field. `message!` writes both directions of those from one line for each
//! field: its name and its kind; the kinds are the functions in `kind`.

use std::fmt;

use tonic::Status;

mod event;
mod management;
mod observe;
mod program;
mod report;
mod routes;
mod sa;
mod session;
mod state;

#[cfg(test)]
mod tests;

/// A message that is not what it says: which field, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Malformed {
    /// Path of the field: `ops[3].put.object.binding.nbma`.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It must be there and is not.
    #[error("missing")]
    Missing,
    /// A number that the enumeration does not have (or 0, "unspecified").
    #[error("{0} is not one of its values")]
    Enumerator(i32),
    /// A number with more bits than its meaning has.
    #[error("{0} is too big")]
    TooBig(u64),
    /// None of what must be one at least.
    #[error("0 is not allowed")]
    Zero,
    /// Text that is not what it should be.
    #[error("{0}")]
    Text(String),
}

impl Malformed {
    fn new(field: &str, problem: Problem) -> Self {
        Self { path: field.to_owned(), problem }
    }

    /// The same, seen from a message that has it in this field.
    fn within(mut self, field: impl fmt::Display) -> Self {
        self.path = format!("{field}.{}", self.path);
        self
    }
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

/// An enumeration, by number.
trait Enumerator: Copy {
    /// Its number; not 0.
    fn number(self) -> i32;
    /// Which has this number.
    fn numbered(number: i32) -> Option<Self>;
}

/// Both directions of an enumeration whose variants have the same names on both sides.
macro_rules! enumeration {
    ($model:path => $pb:ident { $($variant:ident),+ $(,)? }) => {
        impl $crate::convert::Enumerator for $model {
            fn number(self) -> i32 {
                match self {
                    $(Self::$variant => $crate::pb::$pb::$variant.into()),+
                }
            }
            fn numbered(number: i32) -> Option<Self> {
                match $crate::pb::$pb::try_from(number).ok()? {
                    $($crate::pb::$pb::$variant => Some(Self::$variant),)+
                    $crate::pb::$pb::Unspecified => None,
                }
            }
        }
        #[cfg(test)]
        impl $crate::convert::tests::Sample for $model {
            fn sample(dice: &mut $crate::convert::tests::Dice) -> Self {
                [$(Self::$variant),+][dice.below([$(stringify!($variant)),+].len())]
            }
        }
    };
}
use enumeration;

/// Both directions of a message that is its model type field by field: `field: kind`, or `field as pb_field: kind`.
macro_rules! message {
    ($model:path => $pb:ident { $($fields:tt)* }) => {
        message!(@ $model, $pb, [] $($fields)*);
    };
    (@ $model:path, $pb:ident, [$($done:tt)*] $field:ident as $name:ident: $kind:ident, $($rest:tt)*) => {
        message!(@ $model, $pb, [$($done)* ($field $name $kind)] $($rest)*);
    };
    (@ $model:path, $pb:ident, [$($done:tt)*] $field:ident: $kind:ident, $($rest:tt)*) => {
        message!(@ $model, $pb, [$($done)* ($field $field $kind)] $($rest)*);
    };
    (@ $model:path, $pb:ident, [$(($field:ident $name:ident $kind:ident))*]) => {
        impl From<$model> for $crate::pb::$pb {
            fn from(model: $model) -> Self {
                Self { $($name: $crate::convert::kind::$kind::down(model.$field)),* }
            }
        }
        impl TryFrom<$crate::pb::$pb> for $model {
            type Error = $crate::convert::Malformed;
            fn try_from(pb: $crate::pb::$pb) -> Result<Self, Self::Error> {
                Ok(Self { $($field: $crate::convert::kind::$kind::up(pb.$name, stringify!($name))?),* })
            }
        }
        #[cfg(test)]
        impl $crate::convert::tests::Sample for $model {
            fn sample(dice: &mut $crate::convert::tests::Dice) -> Self {
                Self { $($field: $crate::convert::tests::Sample::sample(dice)),* }
            }
        }
    };
}
use message;

/// Kinds of fields: `down` into protobuf, `up` from it.
mod kind {
    /// The same type on both sides.
    pub(super) mod same {
        use crate::convert::Malformed;

        pub(crate) fn down<T>(value: T) -> T {
            value
        }
        pub(crate) fn up<T>(value: T, _: &str) -> Result<T, Malformed> {
            Ok(value)
        }
    }

    /// An address, prefix or name, as text.
    pub(super) mod text {
        use std::fmt::Display;
        use std::str::FromStr;

        use crate::convert::{Malformed, Problem};

        pub(crate) fn down<T: Display>(value: T) -> String {
            value.to_string()
        }
        pub(crate) fn up<T: FromStr<Err: Display>>(text: String, field: &str) -> Result<T, Malformed> {
            if text.is_empty() {
                return Err(Malformed::new(field, Problem::Missing));
            }
            text.parse().map_err(|wrong: T::Err| {
                // Errors of the standard library do not say what they are about.
                let (mut problem, quoted) = (wrong.to_string(), format!("`{text}`"));
                if !problem.contains(&quoted) {
                    problem = format!("{quoted}: {problem}");
                }
                Malformed::new(field, Problem::Text(problem))
            })
        }
    }

    /// As [`text`], if there is any.
    pub(super) mod maybe_text {
        use std::fmt::Display;
        use std::str::FromStr;

        use super::text;
        use crate::convert::Malformed;

        pub(crate) fn down<T: Display>(value: Option<T>) -> Option<String> {
            value.map(text::down)
        }
        pub(crate) fn up<T: FromStr<Err: Display>>(
            text: Option<String>,
            field: &str,
        ) -> Result<Option<T>, Malformed> {
            text.map(|text| text::up(text, field)).transpose()
        }
    }

    /// As [`text`], any number.
    pub(super) mod texts {
        use std::fmt::Display;
        use std::str::FromStr;

        use super::text;
        use crate::convert::Malformed;

        pub(crate) fn down<T: Display>(values: Vec<T>) -> Vec<String> {
            values.into_iter().map(text::down).collect()
        }
        pub(crate) fn up<T: FromStr<Err: Display>>(
            texts: Vec<String>,
            field: &str,
        ) -> Result<Vec<T>, Malformed> {
            texts.into_iter().enumerate().map(|(n, t)| text::up(t, &format!("{field}[{n}]"))).collect()
        }
    }

    /// A number of fewer bits than protobuf has types for.
    pub(super) mod small {
        use crate::convert::{Malformed, Problem};

        pub(crate) fn down<T: Into<u32>>(value: T) -> u32 {
            value.into()
        }
        pub(crate) fn up<T: TryFrom<u32>>(value: u32, field: &str) -> Result<T, Malformed> {
            T::try_from(value).map_err(|_| Malformed::new(field, Problem::TooBig(value.into())))
        }
    }

    /// As [`small`], if there is one.
    pub(super) mod maybe_small {
        use super::small;
        use crate::convert::Malformed;

        pub(crate) fn down<T: Into<u32>>(value: Option<T>) -> Option<u32> {
            value.map(Into::into)
        }
        pub(crate) fn up<T: TryFrom<u32>>(value: Option<u32>, field: &str) -> Result<Option<T>, Malformed> {
            value.map(|value| small::up(value, field)).transpose()
        }
    }

    /// A number of at least 1, of fewer bits or not.
    pub(super) mod positive {
        use std::num::NonZeroU32;

        use crate::convert::{Malformed, Problem};

        pub(crate) fn down<T: Into<u32>>(value: T) -> u32 {
            value.into()
        }
        pub(crate) fn up<T: TryFrom<NonZeroU32>>(value: u32, field: &str) -> Result<T, Malformed> {
            let some = NonZeroU32::new(value).ok_or_else(|| Malformed::new(field, Problem::Zero))?;
            T::try_from(some).map_err(|_| Malformed::new(field, Problem::TooBig(value.into())))
        }
    }

    /// A FIB table's id.
    pub(super) mod table {
        use model::TableId;

        use crate::convert::Malformed;

        pub(crate) fn down(table: TableId) -> u32 {
            table.0
        }
        pub(crate) fn up(table: u32, _: &str) -> Result<TableId, Malformed> {
            Ok(TableId(table))
        }
    }

    /// A VLAN, if there is one.
    pub(super) mod maybe_vlan {
        use model::VlanId;

        use super::small;
        use crate::convert::{Malformed, Problem};

        pub(crate) fn down(vlan: Option<VlanId>) -> Option<u32> {
            vlan.map(|vlan| u16::from(vlan).into())
        }
        pub(crate) fn up(vlan: Option<u32>, field: &str) -> Result<Option<VlanId>, Malformed> {
            let Some(vlan) = vlan else { return Ok(None) };
            let known = VlanId::try_from(small::up::<u16>(vlan, field)?);
            known.map(Some).map_err(|wrong| Malformed::new(field, Problem::Text(wrong.to_string())))
        }
    }

    /// A security parameter index.
    pub(super) mod spi {
        use model::sa::Spi;

        use crate::convert::{Malformed, Problem};

        pub(crate) fn down(spi: Spi) -> u32 {
            spi.value()
        }
        pub(crate) fn up(spi: u32, field: &str) -> Result<Spi, Malformed> {
            Spi::try_from(spi).map_err(|wrong| Malformed::new(field, Problem::Text(wrong.to_string())))
        }
    }

    /// As [`spi`], if there is one.
    pub(super) mod maybe_spi {
        use model::sa::Spi;

        use super::spi;
        use crate::convert::Malformed;

        pub(crate) fn down(value: Option<Spi>) -> Option<u32> {
            value.map(spi::down)
        }
        pub(crate) fn up(value: Option<u32>, field: &str) -> Result<Option<Spi>, Malformed> {
            value.map(|value| spi::up(value, field)).transpose()
        }
    }

    /// As [`spi`], several of them.
    pub(super) mod spis {
        use model::sa::Spi;

        use super::spi;
        use crate::convert::Malformed;

        pub(crate) fn down(value: Vec<Spi>) -> Vec<u32> {
            value.into_iter().map(spi::down).collect()
        }
        pub(crate) fn up(value: Vec<u32>, field: &str) -> Result<Vec<Spi>, Malformed> {
            value.into_iter().map(|value| spi::up(value, field)).collect()
        }
    }

    /// The key of an SA with its salt. What it came in is erased.
    pub(super) mod key {
        use model::sa::SaKey;
        use zeroize::Zeroizing;

        use crate::convert::{Malformed, Problem};

        pub(crate) fn down(key: SaKey) -> Vec<u8> {
            key.keymat().to_vec()
        }
        pub(crate) fn up(keymat: Vec<u8>, field: &str) -> Result<SaKey, Malformed> {
            let keymat = Zeroizing::new(keymat);
            let wrong = || format!("{} bytes are no key with salt (20 or 36)", keymat.len());
            SaKey::new(&keymat).ok_or_else(|| Malformed::new(field, Problem::Text(wrong())))
        }
    }

    /// A worker's number.
    pub(super) mod worker {
        use model::WorkerId;

        use super::small;
        use crate::convert::Malformed;

        pub(crate) fn down(worker: WorkerId) -> u32 {
            worker.0.into()
        }
        pub(crate) fn up(worker: u32, field: &str) -> Result<WorkerId, Malformed> {
            small::up(worker, field).map(WorkerId)
        }
    }

    /// A duration in microseconds.
    pub(super) mod micros {
        use std::time::Duration;

        use crate::convert::Malformed;

        pub(crate) fn down(duration: Duration) -> u64 {
            u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
        }
        pub(crate) fn up(micros: u64, _: &str) -> Result<Duration, Malformed> {
            Ok(Duration::from_micros(micros))
        }
    }

    /// As [`micros`], if there is one.
    pub(super) mod maybe_micros {
        use std::time::Duration;

        use super::micros;
        use crate::convert::Malformed;

        pub(crate) fn down(duration: Option<Duration>) -> Option<u64> {
            duration.map(micros::down)
        }
        pub(crate) fn up(micros: Option<u64>, _: &str) -> Result<Option<Duration>, Malformed> {
            Ok(micros.map(Duration::from_micros))
        }
    }

    /// A value of an enumeration.
    pub(super) mod enumerator {
        use crate::convert::{Enumerator, Malformed, Problem};

        pub(crate) fn down<T: Enumerator>(value: T) -> i32 {
            value.number()
        }
        pub(crate) fn up<T: Enumerator>(number: i32, field: &str) -> Result<T, Malformed> {
            T::numbered(number).ok_or_else(|| Malformed::new(field, Problem::Enumerator(number)))
        }
    }

    /// As [`enumerator`], if there is one.
    pub(super) mod maybe_enumerator {
        use super::enumerator;
        use crate::convert::{Enumerator, Malformed};

        pub(crate) fn down<T: Enumerator>(value: Option<T>) -> Option<i32> {
            value.map(enumerator::down)
        }
        pub(crate) fn up<T: Enumerator>(number: Option<i32>, field: &str) -> Result<Option<T>, Malformed> {
            number.map(|number| enumerator::up(number, field)).transpose()
        }
    }

    /// A message that must be there.
    pub(super) mod inner {
        use crate::convert::{Malformed, Problem};

        pub(crate) fn down<M, P: From<M>>(model: M) -> Option<P> {
            Some(model.into())
        }
        pub(crate) fn up<M: TryFrom<P, Error = Malformed>, P>(
            pb: Option<P>,
            field: &str,
        ) -> Result<M, Malformed> {
            let pb = pb.ok_or_else(|| Malformed::new(field, Problem::Missing))?;
            pb.try_into().map_err(|wrong: Malformed| wrong.within(field))
        }
    }

    /// A message that may be there.
    pub(super) mod maybe_inner {
        use crate::convert::Malformed;

        pub(crate) fn down<M, P: From<M>>(model: Option<M>) -> Option<P> {
            model.map(Into::into)
        }
        pub(crate) fn up<M: TryFrom<P, Error = Malformed>, P>(
            pb: Option<P>,
            field: &str,
        ) -> Result<Option<M>, Malformed> {
            pb.map(|pb| pb.try_into().map_err(|wrong: Malformed| wrong.within(field))).transpose()
        }
    }

    /// Messages.
    pub(super) mod inners {
        use crate::convert::Malformed;

        pub(crate) fn down<M, P: From<M>>(models: Vec<M>) -> Vec<P> {
            models.into_iter().map(Into::into).collect()
        }
        pub(crate) fn up<M: TryFrom<P, Error = Malformed>, P>(
            pbs: Vec<P>,
            field: &str,
        ) -> Result<Vec<M>, Malformed> {
            let up = |(n, pb): (usize, P)| {
                pb.try_into().map_err(|wrong: Malformed| wrong.within(format_args!("{field}[{n}]")))
            };
            pbs.into_iter().enumerate().map(up).collect()
        }
    }
}

/// What a message says must be there.
fn needed<T>(value: Option<T>, field: &str) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed::new(field, Problem::Missing))
}

/// A message in a field.
fn up<M: TryFrom<P, Error = Malformed>, P>(pb: P, field: &str) -> Result<M, Malformed> {
    pb.try_into().map_err(|wrong: Malformed| wrong.within(field))
}

/// Which interface is watched.
pub(crate) fn watched(request: crate::pb::WatchRequest) -> Result<Option<model::InterfaceName>, Malformed> {
    kind::maybe_text::up(request.interface, "interface")
}

/// A state of another kind than was asked for.
pub(crate) fn unasked(what: model::state::What) -> Malformed {
    Malformed::new("state", Problem::Text(format!("{what:?} was not asked for")))
}
