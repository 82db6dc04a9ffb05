//! Runs the cases of a feature against one node, and all of them again through each node of three.
//! The three are shared by all of them, so that none may rely on an empty store.

/// Each case as a test against one node, and all of them in one test through each node of three.
macro_rules! cases {
    ($($case:ident)*) => {
        mod one {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let cluster = crate::harness::Cluster::start(1).await;
                    super::$case(&cluster.client(0)).await;
                    cluster.stop().await;
                }
            )*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn through_each_of_three() {
            let cluster = crate::harness::Cluster::start(3).await;
            for node in 0..3 {
                $(
                    eprintln!("{} through node {}", stringify!($case), node + 1);
                    $case(&cluster.client(node)).await;
                )*
            }
            cluster.stop().await;
        }
    };
}
