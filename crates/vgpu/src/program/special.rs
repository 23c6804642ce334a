//! Special registers: `%tid.x`, `%laneid`, `%clock64` and the rest.

/// A special register that the machine knows. The letter of a component is its index: x 0, y 1, z 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the PTX special register of its name")]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    Gridid,
    IsExplicitCluster,
    Clusterid(u8),
    Nclusterid(u8),
    ClusterCtaid(u8),
    ClusterNctaid(u8),
    ClusterCtarank,
    ClusterNctarank,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    DynamicSmemSize,
    TotalSmemSize,
    Clock,
    ClockHi,
    Clock64,
    Globaltimer,
    GlobaltimerLo,
    GlobaltimerHi,
}

impl Special {
    /// Reads a name with its `%`.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix('%')?;
        if let Some((base, component)) = name.split_once('.') {
            let index = match component {
                "x" => 0,
                "y" => 1,
                "z" => 2,
                _ => return None,
            };
            return Some(match base {
                "tid" => Self::Tid(index),
                "ntid" => Self::Ntid(index),
                "ctaid" => Self::Ctaid(index),
                "nctaid" => Self::Nctaid(index),
                "clusterid" => Self::Clusterid(index),
                "nclusterid" => Self::Nclusterid(index),
                "cluster_ctaid" => Self::ClusterCtaid(index),
                "cluster_nctaid" => Self::ClusterNctaid(index),
                _ => return None,
            });
        }
        Some(match name {
            "laneid" => Self::Laneid,
            "warpid" => Self::Warpid,
            "nwarpid" => Self::Nwarpid,
            "smid" => Self::Smid,
            "nsmid" => Self::Nsmid,
            "gridid" => Self::Gridid,
            "is_explicit_cluster" => Self::IsExplicitCluster,
            "cluster_ctarank" => Self::ClusterCtarank,
            "cluster_nctarank" => Self::ClusterNctarank,
            "lanemask_eq" => Self::LanemaskEq,
            "lanemask_le" => Self::LanemaskLe,
            "lanemask_lt" => Self::LanemaskLt,
            "lanemask_ge" => Self::LanemaskGe,
            "lanemask_gt" => Self::LanemaskGt,
            "dynamic_smem_size" => Self::DynamicSmemSize,
            "total_smem_size" => Self::TotalSmemSize,
            "clock" => Self::Clock,
            "clock_hi" => Self::ClockHi,
            "clock64" => Self::Clock64,
            "globaltimer" => Self::Globaltimer,
            "globaltimer_lo" => Self::GlobaltimerLo,
            "globaltimer_hi" => Self::GlobaltimerHi,
            _ => return None,
        })
    }

    /// Whether its value changes while a warp runs, so that each reader reads it anew.
    pub fn is_moving(self) -> bool {
        matches!(
            self,
            Self::Clock
                | Self::ClockHi
                | Self::Clock64
                | Self::Globaltimer
                | Self::GlobaltimerLo
                | Self::GlobaltimerHi
        )
    }

    /// Rows of its register.
    pub fn rows(self) -> u8 {
        match self {
            Self::Clock64 | Self::Globaltimer | Self::Gridid => 2,
            _ => 1,
        }
    }
}
