//! Launches on the command line: options that belong to one launch, in groups that `--launch`
//! separates.

use clap::{Arg as Switch, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use super::arg::Arg;

/// One launch as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The kernel; `None`: the only one there is.
    pub entry: Option<String>,
    /// Blocks of the grid.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; `None`: what the kernel says, or no clusters.
    pub cluster: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The device.
    pub device: u32,
    /// The stream of the device, 0 its default one.
    pub stream: u32,
    /// Whether all blocks must run at the same time.
    pub cooperative: bool,
    /// Arguments in the order of the parameters.
    pub args: Vec<Arg>,
}

impl Group {
    fn new() -> Self {
        Self {
            entry: None,
            grid: [1; 3],
            block: [1; 3],
            cluster: None,
            shared: 0,
            device: 0,
            stream: 0,
            cooperative: false,
            args: Vec::new(),
        }
    }
}

/// The launches, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Groups(pub Vec<Group>);

/// Buffers, scalars and structures, for `--arg`.
const ARG_HELP: &str = "An argument; give them in the order of the parameters.
  7, -1.5, 0x10        a number of the parameter's type
  u32:7, f16:0.5       a number of this type
  buf:NAME=FILL        a new buffer on the launch's device (NAME@1=FILL: on device 1)
  buf:NAME, buf:NAME+16
                       a buffer of any launch, or BYTES behind its start
  bytes:00ff           bytes of a structure, in hexadecimal
  struct:u64=@NAME,u32=5,pad=4
                       members at their natural alignment
  map:NAME,bf16,dims=K,M,box=64,64[,strides=BYTES][,swizzle=128][,steps=1,1][,fill=nan]
                       a tensor map; dimension 0 is the innermost and has no stride
FILL is one of
  zeros:T[N]           zeros; T is u8 to u64, s8 to s64, f16, bf16, f32, f64, e4m3 or e5m2
  range:T[N]           0, 1, 2, …
  const:V:T[N]         V throughout
  random:T[N][:seed=S] real numbers in [-1, 1), whole numbers over their full range
  uninit:T[N]          nothing: reading it before it is written is reported
  file:PATH:T          a file of little-endian values
  ptrs:NAME,NAME+8     addresses of buffers";

const HEADING: &str = "Launches";

/// An option of a launch that takes a value.
fn valued(name: &'static str, value: &'static str, help: &'static str) -> Switch {
    Switch::new(name)
        .long(name)
        .value_name(value)
        .help(help)
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .help_heading(HEADING)
}

/// An option of a launch that stands for itself.
fn flag(name: &'static str, help: &'static str) -> Switch {
    Switch::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::Append)
        .num_args(0)
        .default_missing_value("")
        .help_heading(HEADING)
}

fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is no whole number from 0 to {}", u32::MAX))
}

impl Args for Groups {
    fn augment_args(command: Command) -> Command {
        command
            .arg(flag("launch", "Begins another launch: the options behind it are its own"))
            .arg(valued("entry", "NAME", "The kernel; may be left out if the file has one"))
            .arg(valued("grid", "X,Y,Z", "Blocks [default: 1]").value_parser(extent))
            .arg(valued("block", "X,Y,Z", "Threads a block [default: 1]").value_parser(extent))
            .arg(
                valued("cluster", "X,Y,Z", "Blocks a cluster [default: what the kernel requires]")
                    .value_parser(extent),
            )
            .arg(
                valued("shared", "BYTES", "Dynamic shared memory [default: 0]")
                    .value_parser(number),
            )
            .arg(
                valued("arg", "VALUE", "An argument, in the order of the parameters")
                    .long_help(ARG_HELP)
                    .value_parser(Arg::parse),
            )
            .arg(valued("device", "N", "The device [default: 0]").value_parser(number))
            .arg(
                valued(
                    "stream",
                    "N",
                    "The stream of the device; 0 is the default one. Launches on several streams or \
                     devices run at the same time [default: 0]",
                )
                .value_parser(number),
            )
            .arg(flag("cooperative", "All blocks must run at the same time (grid barriers)"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Calls `put(place on the command line, value)` for each occurrence of an option.
fn each<T: Clone + Send + Sync + 'static>(
    matches: &ArgMatches,
    name: &str,
    mut put: impl FnMut(usize, T),
) {
    let places = matches.indices_of(name).into_iter().flatten();
    let values = matches.get_many::<T>(name).into_iter().flatten();
    for (place, value) in places.zip(values) {
        put(place, value.clone());
    }
}

impl FromArgMatches for Groups {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut starts = Vec::new();
        each(matches, "launch", |place, _: String| starts.push(place));
        // Options before the first `--launch` are a launch of their own, if there are any.
        let mut groups = vec![Group::new(); starts.len() + 1];
        let of = |place: usize| starts.iter().filter(|&&start| start < place).count();
        let mut seen = std::collections::BTreeSet::new();
        let mut twice = None;
        let mut first = false;
        let mut at = |name: &'static str, place: usize| {
            let group = of(place);
            first |= group == 0;
            if !seen.insert((name, group)) && name != "arg" {
                twice = Some((name, group));
            }
            group
        };
        each(matches, "entry", |p, v| {
            groups[at("entry", p)].entry = Some(v)
        });
        each(matches, "grid", |p, Extent(v)| {
            groups[at("grid", p)].grid = v
        });
        each(matches, "block", |p, Extent(v)| {
            groups[at("block", p)].block = v
        });
        each(matches, "cluster", |p, Extent(v)| {
            groups[at("cluster", p)].cluster = Some(v)
        });
        each(matches, "shared", |p, v| groups[at("shared", p)].shared = v);
        each(matches, "device", |p, v| groups[at("device", p)].device = v);
        each(matches, "stream", |p, v| groups[at("stream", p)].stream = v);
        each(matches, "cooperative", |p, _: String| {
            groups[at("cooperative", p)].cooperative = true
        });
        each(matches, "arg", |p, v| groups[at("arg", p)].args.push(v));
        if let Some((name, _)) = twice {
            return Err(Error::raw(
                clap::error::ErrorKind::ArgumentConflict,
                format!("--{name} is given twice for one launch; --launch begins another\n"),
            ));
        }
        if !starts.is_empty() && !first {
            groups.remove(0);
        }
        Ok(Self(groups))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `X`, `X,Y` or `X,Y,Z`, each at least 1.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Extent([u32; 3]);

fn extent(text: &str) -> Result<Extent, String> {
    let parts: Option<Vec<u32>> = text
        .split(',')
        .map(|part| part.trim().parse().ok().filter(|&n| n > 0))
        .collect();
    match parts.as_deref() {
        Some(parts @ [_, ..]) if parts.len() <= 3 => {
            let mut extent = [1; 3];
            extent[..parts.len()].copy_from_slice(parts);
            Ok(Extent(extent))
        }
        _ => Err(format!(
            "'{text}' is not of the form X, X,Y or X,Y,Z with whole numbers of at least 1"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Vec<Group>, String> {
        let command = Groups::augment_args(Command::new("test"));
        let words = ["test"].into_iter().chain(line.split_whitespace());
        let matches = command
            .try_get_matches_from(words)
            .map_err(|e| e.to_string())?;
        let groups = Groups::from_arg_matches(&matches).map_err(|e| e.to_string())?;
        Ok(groups.0)
    }

    #[test]
    fn launches_own_what_stands_behind_them() {
        let one = parse("--entry a --grid 2,3 --arg 7 --arg -8 --shared 64").unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(
            (one[0].entry.as_deref(), one[0].grid),
            (Some("a"), [2, 3, 1])
        );
        assert_eq!(
            one[0].args,
            [Arg::Bare("7".to_owned()), Arg::Bare("-8".to_owned())]
        );
        let two = parse(
            "--launch --entry a --arg 1 --cooperative --launch --block 32 --device 1 --stream 2 \
             --arg 2 --arg 3 --cluster 4",
        )
        .unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(
            (two[0].args.len(), two[0].cooperative, two[0].block),
            (1, true, [1; 3])
        );
        assert_eq!(
            (two[1].args.len(), two[1].cooperative, two[1].entry.clone()),
            (2, false, None)
        );
        assert_eq!(
            (two[1].device, two[1].stream, two[1].cluster),
            (1, 2, Some([4, 1, 1]))
        );
        assert_eq!(parse("--arg 1 --launch --arg 2").unwrap().len(), 2);
        assert_eq!(parse("").unwrap().len(), 1);
    }

    #[test]
    fn bad_launches_say_what_would_be_right() {
        for (line, words) in [
            ("--grid 0", "at least 1"),
            ("--grid 1,2,3,4", "X,Y,Z"),
            ("--block x", "'x'"),
            ("--shared -1", "'-1'"),
            ("--entry a --entry b", "--entry is given twice"),
            ("--arg int:1", "'int:1' is no argument"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
