//! `map:NAME,TYPE,dims=…,box=…`: tensor maps for TMA.

use tollgate_vgpu::layout::swizzle::Swizzle;
use tollgate_vgpu::layout::tma::{
    BYTES, Interleave, L2Promotion, OobFill, TensorElement, TmaError, encode_tiled,
};

use super::element::whole;
use super::place::Pointer;

/// The form, for messages.
pub const FORM: &str = "map:NAME,TYPE,dims=D0,D1…,box=B0,B1…[,strides=BYTES…][,swizzle=32|64|128]\
                        [,steps=…][,fill=nan]";

/// A tiled tensor map; dimension 0 is the innermost.
#[derive(Debug, Clone, PartialEq)]
pub struct MapSpec {
    /// The element at the origin.
    pub origin: Pointer,
    element: TensorElement,
    dims: Vec<u64>,
    strides: Vec<u64>,
    extent: Vec<u32>,
    steps: Vec<u32>,
    swizzle: Swizzle,
    oob: OobFill,
}

impl MapSpec {
    /// Reads what stands behind `map:`.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split(',').map(str::trim);
        let origin = Pointer::parse(words.next().unwrap_or_default())?;
        let element = element(words.next().unwrap_or_default())?;
        let mut map = Self {
            origin,
            element,
            dims: Vec::new(),
            strides: Vec::new(),
            extent: Vec::new(),
            steps: Vec::new(),
            swizzle: Swizzle::None,
            oob: OobFill::Zero,
        };
        let mut key = "";
        for word in words {
            // A list goes on until the next key.
            let value = match word.split_once('=') {
                Some((next, value)) => {
                    key = next;
                    value
                }
                None => word,
            };
            match key {
                "dims" => map.dims.push(number(key, value)?),
                "strides" => map.strides.push(number(key, value)?),
                "box" => map.extent.push(number(key, value)?),
                "steps" => map.steps.push(number(key, value)?),
                "swizzle" => map.swizzle = swizzle(value)?,
                "fill" => map.oob = fill(value)?,
                _ => {
                    return Err(format!(
                        "'{word}' is not part of a tensor map; write {FORM}"
                    ));
                }
            }
        }
        let rank = map.dims.len();
        if rank == 0 || map.extent.len() != rank {
            return Err(format!(
                "a tensor map needs as many dims as box sizes; '{text}' has {rank} and {}; write \
                 {FORM}",
                map.extent.len()
            ));
        }
        if map.strides.is_empty() {
            map.strides = map.dense();
        }
        if map.steps.is_empty() {
            map.steps = vec![1; rank];
        }
        if (map.strides.len(), map.steps.len()) != (rank - 1, rank) {
            return Err(format!(
                "{rank} dims need {} strides, from dimension 1 on and in bytes, and {rank} steps; \
                 '{text}' has {} and {}",
                rank - 1,
                map.strides.len(),
                map.steps.len()
            ));
        }
        Ok(map)
    }

    /// Strides of a tensor without gaps.
    fn dense(&self) -> Vec<u64> {
        let mut stride = u64::from(self.element.bytes());
        let mut strides = Vec::new();
        for dim in &self.dims[..self.dims.len() - 1] {
            stride = stride.saturating_mul(*dim);
            strides.push(stride);
        }
        strides
    }

    /// The 128 bytes, with the origin at `address`.
    ///
    /// # Errors
    /// What the driver would refuse, with value and bound.
    pub fn encode(&self, address: u64) -> Result<[u8; BYTES], TmaError> {
        encode_tiled(
            self.element,
            self.dims.len() as u32,
            address,
            &self.dims,
            &self.strides,
            &self.extent,
            &self.steps,
            Interleave::None,
            self.swizzle,
            L2Promotion::None,
            self.oob,
        )
    }
}

fn number<N: TryFrom<i128>>(key: &str, text: &str) -> Result<N, String> {
    whole(text)
        .and_then(|value| N::try_from(value).ok())
        .ok_or_else(|| format!("{key} has '{text}', which is no whole number in range"))
}

fn element(text: &str) -> Result<TensorElement, String> {
    let name = |element: TensorElement| match element {
        TensorElement::F32Ftz => "f32.ftz".to_owned(),
        TensorElement::Tf32Ftz => "tf32.ftz".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    TensorElement::ALL
        .into_iter()
        .find(|&element| name(element) == text)
        .ok_or_else(|| {
            let known = TensorElement::ALL.map(name).join(", ");
            format!("a tensor map has no elements of type '{text}'; there are {known}")
        })
}

fn swizzle(text: &str) -> Result<Swizzle, String> {
    match text {
        "none" | "0" => Ok(Swizzle::None),
        "32" => Ok(Swizzle::B32),
        "64" => Ok(Swizzle::B64),
        "128" => Ok(Swizzle::B128),
        _ => Err(format!("swizzle is '{text}', must be none, 32, 64 or 128")),
    }
}

fn fill(text: &str) -> Result<OobFill, String> {
    match text {
        "zero" => Ok(OobFill::Zero),
        "nan" => Ok(OobFill::Nan),
        _ => Err(format!("fill is '{text}', must be zero or nan")),
    }
}

#[cfg(test)]
mod tests {
    use tollgate_vgpu::layout::tma::TensorMap;

    use super::*;

    #[test]
    fn lists_run_to_the_next_key() {
        let map = MapSpec::parse("w+32,bf16,dims=128,64,box=64,16,swizzle=128,fill=nan").unwrap();
        let map = TensorMap::decode(&map.encode(0x1000).unwrap()).unwrap();
        assert_eq!(
            (map.dims[..2].to_vec(), map.strides[1]),
            (vec![128, 64], 256)
        );
        assert_eq!((map.extent[..2].to_vec(), map.rank), (vec![64, 16], 2));
        assert_eq!((map.swizzle, map.oob), (Swizzle::B128, OobFill::Nan));
        let wide = MapSpec::parse("w,f32,dims=8,4,strides=1024,box=8,4").unwrap();
        let wide = TensorMap::decode(&wide.encode(0).unwrap()).unwrap();
        assert_eq!(wide.strides[1], 1024);
    }

    #[test]
    fn bad_maps_say_what_would_be_right() {
        for (text, words) in [
            ("w", "type ''"),
            ("w,float,dims=4,box=4", "bf16"),
            ("w,f32,dims=4,4,box=4", "has 2 and 1"),
            ("w,f32,box=4", "has 0 and 1"),
            ("w,f32,dims=4,4,box=4,4,strides=1,2", "1 strides"),
            ("w,f32,dims=4,box=4,swizzle=16", "32, 64 or 128"),
            ("w,f32,dims=x,box=4", "'x'"),
            ("w,f32,4", "dims=D0"),
        ] {
            let error = MapSpec::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let map = MapSpec::parse("w,f32,dims=6,4,box=4,4").unwrap();
        assert!(
            map.encode(0)
                .unwrap_err()
                .to_string()
                .contains("multiple of 16")
        );
    }
}
