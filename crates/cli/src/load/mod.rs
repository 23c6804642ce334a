//! Files to tensors: the layer, whichever names it is stored under, and its tokens.
//!
//! Everything is checked here, so that an error names the file, the tensor and what to do; the
//! library then sees tensors that fit each other. Values are decoded by their bytes and may lie at
//! any alignment.

mod container;
mod dense;
mod moe;
mod tensor;
mod tokens;

use std::borrow::Cow;
use std::path::Path;

pub use container::Container;
pub use tensor::Tensor;
pub use tokens::Tokens;
use tollgate::Element;
use tollgate::options::Activation;

use crate::args::{InputArgs, Upcycle};
use crate::error::{Failure, Result};

/// The embedded input (`data/README.md`).
const EMBEDDED: &[u8] = include_bytes!("../../../../data/minilm-layer3.safetensors");
/// Its name in reports.
const EMBEDDED_NAME: &str = "minilm-layer3.safetensors (embedded)";

/// The parameters of one layer, in the run's element type; the router stays f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Model<T> {
    /// The file.
    pub origin: String,
    /// What the file holds and how experts were made of it, for the report.
    pub form: String,
    /// H.
    pub hidden: usize,
    /// I.
    pub intermediate: usize,
    /// E.
    pub experts: usize,
    /// The experts' activation.
    pub activation: Activation,
    /// Whether experts are gated: up is `[E, 2·I, H]` then.
    pub gated: bool,
    /// `[E, H]`.
    pub router: Vec<f32>,
    /// `[E, H]`, where the file has it.
    pub router_noise: Option<Vec<f32>>,
    /// `[E]`, where the file has it.
    pub selection_bias: Option<Vec<f32>>,
    /// `[V]` expert of each token id, where the file has it.
    pub hash_table: Option<Vec<i32>>,
    /// `[E, N1, H]`.
    pub up: Vec<T>,
    /// `[E, N1]`.
    pub up_bias: Option<Vec<T>>,
    /// `[E, H, I]`.
    pub down: Vec<T>,
    /// `[E, H]`.
    pub down_bias: Option<Vec<T>>,
    /// How experts were made of a dense FFN; `None` where the file holds experts.
    pub upcycle: Option<Upcycle>,
    /// Tensors of the layer that have no place here (shared experts, say), listed.
    pub unused: Option<String>,
}

impl<T: Element> Model<T> {
    /// Reads the layer of a file, whichever format it has.
    ///
    /// # Errors
    /// No layer, or one whose tensors are missing, misshapen, of a wrong type or not finite.
    pub fn read(container: &Container<'_>, args: &InputArgs) -> Result<Self> {
        let mut model: Self = if dense::found(container) {
            dense::read(container, args)?
        } else if moe::found(container) {
            moe::read(container, args)?
        } else {
            return Err(Failure::file(
                container.file(),
                format!(
                    "holds no layer that is known here: neither 'w_up', nor a name that ends in \
                     'block_sparse_moe.gate.weight' or 'mlp.gate.weight', only {}",
                    container.listing()
                ),
                "see data/README.md for the dense format",
            ));
        };
        for (what, size) in [
            ("experts (E)", model.experts),
            ("hidden (H)", model.hidden),
            ("intermediate (I)", model.intermediate),
        ] {
            if size == 0 {
                let problem = format!("its layer has {size} {what}, must have at least 1");
                return Err(Failure::file(
                    container.file(),
                    problem,
                    "export the layer again",
                ));
            }
        }
        // By these names in any format; the models' own names are read with their format.
        let (e, h) = (model.experts, model.hidden);
        if let Some(noise) = container.get("router_noise") {
            noise.expect_shape(&[e, h], "[E, H]")?;
            model.router_noise = Some(noise.reals()?);
        }
        for name in ["selection_bias", "e_score_correction_bias"] {
            if let Some(bias) = container.get(name) {
                bias.expect_shape(&[e], "[E]")?;
                model.selection_bias = Some(bias.reals()?);
            }
        }
        if let Some(table) = container.get("hash_table") {
            model.hash_table = Some(table.indices(e)?);
        }
        Ok(model)
    }
}

/// A layer and the tokens to run it on.
#[derive(Debug, Clone, PartialEq)]
pub struct Input<T> {
    /// The layer.
    pub model: Model<T>,
    /// The tokens; their H is the layer's.
    pub tokens: Tokens<T>,
}

/// Reads the one layer and the tokens that the options name.
///
/// # Errors
/// Several layers, or files that cannot be used.
pub fn input<T: Element>(args: &InputArgs) -> Result<Input<T>> {
    let (mut models, tokens) = inputs(args)?;
    match models.len() {
        1 => Ok(Input {
            model: models.remove(0),
            tokens,
        }),
        count => Err(Failure::Usage(format!(
            "--layer is given {count} times, only 'tollgate curriculum' takes several; give it once"
        ))),
    }
}

/// Reads the layers and the tokens that the options name.
///
/// # Errors
/// Files that cannot be used, layers or tokens of different H.
pub fn inputs<T: Element>(args: &InputArgs) -> Result<(Vec<Model<T>>, Tokens<T>)> {
    inconsistent(args)?;
    let mut models = Vec::new();
    let mut tokens = None;
    let sources = match args.layer.as_slice() {
        [] => vec![None],
        files => files.iter().map(|f| Some(f.as_path())).collect(),
    };
    for source in sources {
        let (name, bytes) = bytes(source)?;
        let container = Container::parse(&name, &bytes)?;
        models.push(Model::<T>::read(&container, args)?);
        // Without --tokens the first file that has tokens gives them.
        if args.tokens.is_none() && tokens.is_none() && container.get("hidden").is_some() {
            tokens = Some(Tokens::read(&container)?);
        }
    }
    if let Some(file) = &args.tokens {
        let (name, bytes) = bytes(Some(file))?;
        tokens = Some(Tokens::read(&Container::parse(&name, &bytes)?)?);
    }
    let Some(tokens) = tokens else {
        return Err(Failure::file(
            &models[0].origin,
            "has no tokens (no tensor 'hidden')",
            "give a file that has some with --tokens",
        ));
    };
    for model in &models {
        if model.hidden != tokens.hidden {
            return Err(Failure::file(
                &tokens.origin,
                format!(
                    "its tokens have H = {}, but the layer of {} has H = {}",
                    tokens.hidden, model.origin, model.hidden
                ),
                "give the activations that enter this very layer",
            ));
        }
    }
    Ok((models, tokens))
}

/// Options that would have no effect.
fn inconsistent(args: &InputArgs) -> Result<()> {
    let noise = args.upcycle.is_none_or(|how| how == Upcycle::Noise);
    if !noise && (args.sigma.is_some() || args.upcycle_seed.is_some()) {
        return Err(Failure::Usage(
            "--sigma and --upcycle-seed belong to --upcycle noise; leave them out".to_owned(),
        ));
    }
    Ok(())
}

/// The bytes of a file, or the embedded ones, and the name to use for them.
fn bytes(source: Option<&Path>) -> Result<(String, Cow<'static, [u8]>)> {
    let Some(path) = source else {
        return Ok((EMBEDDED_NAME.to_owned(), Cow::Borrowed(EMBEDDED)));
    };
    let name = path.display().to_string();
    let refuse = |problem: String, advice: &str| Err(Failure::file(&name, problem, advice));
    let advice = "check the path and its permissions";
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return refuse(format!("cannot be opened ({error})"), advice),
    };
    if !metadata.is_file() {
        return refuse(
            "is not a regular file".to_owned(),
            "name a safetensors file",
        );
    }
    if metadata.len() == 0 {
        return refuse(
            "is empty (0 bytes)".to_owned(),
            "copy or export it again as safetensors",
        );
    }
    match std::fs::read(path) {
        Ok(bytes) => Ok((name, Cow::Owned(bytes))),
        Err(error) => refuse(format!("cannot be read ({error})"), advice),
    }
}

/// Zeros, or `None` where the memory for them is not to be had.
pub(crate) fn zeros<T: Element>(elems: usize) -> Option<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(elems).ok()?;
    values.resize(elems, T::default());
    Some(values)
}
