//! A dense feed-forward network with a router, in the format of `data/README.md`.

use tollgate::Element;
use tollgate::options::Activation;

use super::{Container, Model};
use crate::args::{InputArgs, Upcycle};
use crate::error::Result;
use crate::upcycle::{self, Dense, Matrix};

/// Whether the file looks like one.
pub(super) fn found(container: &Container<'_>) -> bool {
    container.get("w_up").is_some() || container.get("w_down").is_some()
}

/// Reads the FFN and makes experts of it.
pub(super) fn read<T: Element>(container: &Container<'_>, args: &InputArgs) -> Result<Model<T>> {
    let up = container.require("w_up")?;
    let (intermediate, hidden) = up.matrix()?;
    let down = container.require("w_down")?;
    down.expect_shape(&[hidden, intermediate], "[H, I]")?;
    let router = container.require("router_weight")?;
    let (experts, _) = router.matrix()?;
    router.expect_shape(&[experts, hidden], "[E, H]")?;
    let bias = |name: &'static str, len: usize, letters: &str| {
        let tensor = container.get(name).map(|t| {
            t.expect_shape(&[len], letters)?;
            t.reals()
        });
        tensor.transpose()
    };
    let matrix = |tensor: &super::Tensor<'_>| -> Result<Matrix> {
        let values = tensor.reals()?;
        let stored = tensor.real_type().unwrap_or(tollgate::DType::F32);
        Ok(Matrix { values, stored })
    };
    let how = args.upcycle.unwrap_or(Upcycle::Noise);
    let owner = match how {
        Upcycle::Partition => {
            let tensor = container.require("neuron_expert")?;
            tensor.expect_shape(&[intermediate], "[I]")?;
            Some(tensor.indices(experts)?)
        }
        Upcycle::Copy | Upcycle::Noise => None,
    };
    let dense = Dense {
        hidden,
        intermediate,
        up: matrix(&up)?,
        up_bias: bias("b_up", intermediate, "[I]")?,
        down: matrix(&down)?,
        down_bias: bias("b_down", hidden, "[H]")?,
        owner,
    };
    let made = upcycle::experts(&dense, how, experts, args, container.file())?;
    Ok(Model {
        origin: container.file().to_owned(),
        form: made.form,
        hidden,
        intermediate: made.intermediate,
        experts,
        activation: args.activation.unwrap_or(Activation::Gelu),
        gated: false,
        router: router.reals()?,
        router_noise: None,
        selection_bias: None,
        hash_table: None,
        up: made.up,
        up_bias: made.up_bias,
        down: made.down,
        down_bias: made.down_bias,
        upcycle: Some(how),
        unused: None,
    })
}
