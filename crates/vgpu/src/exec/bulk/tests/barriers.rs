//! The mbarriers on which copies complete.

use super::*;

#[test]
fn an_initialisation_needs_a_fence_before_copies_see_it() {
    let body = format!(
        "@%lead mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], 512;\n\
         @%lead cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%tile], [%in], 512, \
         [%bar];\nAWAIT\n{DUMP}"
    );
    let fence = "fence.mbarrier_init.release.cluster;";
    let text = kernel(&body);
    assert!(text.contains(fence));
    for (instead, found) in [
        (fence, vec![]),
        ("fence.proxy.async.shared::cta;", vec![]),
        ("fence.acq_rel.cluster;", vec![Kind::ProxyFence]),
    ] {
        let memory = Memory::new(1, true);
        let input = buffer(&memory, &numbers(128));
        let output = buffer(&memory, &[0_u32; 128]);
        let text = text.replace(fence, instead);
        let at = [input.base(), output.base()];
        let outcome = launch(&text, [[0; 128]; 2], at, &memory, |_| {});
        assert_eq!(kinds(&outcome), found, "{instead} {outcome:?}");
        assert_eq!(contents::<u32>(&output), numbers(128));
        if let Some(report) = outcome.reports.first() {
            let other = report.other.as_ref().map(|site| site.ptx.as_str());
            assert!(
                other.is_some_and(|ptx| ptx.contains("mbarrier.init")),
                "{report}"
            );
        }
    }
}
