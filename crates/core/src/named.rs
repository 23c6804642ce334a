//! Option enums with one spelling each, shared by the library, the command and the JSON.

/// The text names no variant of the option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {option} '{text}', expected one of {expected}")]
pub struct ParseNameError {
    /// The option, e.g. `gap`.
    pub option: &'static str,
    /// What was given.
    pub text: String,
    /// The legal names, separated by commas.
    pub expected: String,
}

/// Declares an enum whose variants have one name each, with `ALL`, `name()`, `Display` and
/// `FromStr`.
macro_rules! named_enum {
    ($(#[$meta:meta])* pub enum $name:ident($option:literal) {
        $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The one spelling of the variant: on the command line, in JSON and in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::named::ParseNameError;
            fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|v| v.name() == text).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|v| v.name()).collect();
                    $crate::named::ParseNameError {
                        option: $option,
                        text: text.to_owned(),
                        expected: names.join(", "),
                    }
                })
            }
        }
    };
}
pub(crate) use named_enum;
