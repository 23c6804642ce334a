//! The library's option enums as command-line values that list their choices.

/// A value parser of an enum that has `ALL` and `name()`.
macro_rules! named {
    ($type:ty) => {{
        use clap::builder::{PossibleValuesParser, TypedValueParser};
        PossibleValuesParser::new(<$type>::ALL.iter().map(|v| v.name()))
            .try_map(|text| text.parse::<$type>())
    }};
}
pub(crate) use named;
