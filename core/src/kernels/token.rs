//! Backends that a CPU has or has not: the token that proves it.

/// A token, and how it is come by: `$has` asks the running CPU for a feature.
///
/// Its `q8` micro-kernels are named after `$kernel`, for tiles of `r16k4` and `r4k4`; those that take an odd number of
/// columns at once after `$odd`, where they are others. What computes no rows of `q8` is `$rest`'s, if there is
/// one: a backend whose features are among these.
macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $text:literal, $kernel:literal, $($rest:tt)*) => {
        $crate::kernels::token::token! { $(#[$doc])* $name, $text, ($kernel, $kernel), $($rest)* }
    };
    ($(#[$doc:meta])* $name:ident, $text:literal, ($kernel:literal, $odd:literal), $has:ident, $features:literal, [$($feature:tt),*] $(, $rest:ident)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct $name(());

        impl $crate::kernels::isa::Named for $name {
            const NAME: &'static str = $text;
            $(const WITHOUT_Q8: &'static str = <$rest as $crate::kernels::isa::Named>::WITHOUT_Q8;)?
        }

        impl $name {
            pub(crate) const fn q8_kernel(
                layout: $crate::kernels::layout::Layout,
                columns: usize,
            ) -> Option<&'static str> {
                match (layout, columns % 2) {
                    ($crate::kernels::layout::Layout::R16K4, 0) => Some(concat!("gemv_q8_r16k4_", $kernel)),
                    ($crate::kernels::layout::Layout::R16K4, _) => Some(concat!("gemv_q8_r16k4_", $odd)),
                    ($crate::kernels::layout::Layout::R4K4, 0) => Some(concat!("gemv_q8_r4k4_", $kernel)),
                    ($crate::kernels::layout::Layout::R4K4, _) => Some(concat!("gemv_q8_r4k4_", $odd)),
                    _ => None,
                }
            }

            /// The proof, if every CPU that this build runs on has the features.
            pub(crate) const fn of_build() -> Option<Self> {
                if cfg!(all($(target_feature = $feature),*)) {
                    Some(Self(()))
                } else {
                    None
                }
            }

            /// The proof, if the running CPU has the features.
            #[cfg(any(test, feature = "std"))]
            pub(crate) fn detect() -> Option<Self> {
                ($(std::arch::$has!($feature))&&*).then_some(Self(()))
            }

            /// Runs a task compiled with the features. FMA may be among them or follow from them: the compiler fuses
            /// nothing that is not written so.
            #[inline(always)]
            #[allow(unsafe_code)]
            pub(crate) fn enter<T: $crate::kernels::Task>(self, task: T) -> T::Output {
                $(if T::WITHOUT_Q8 {
                    return $rest(()).enter(task);
                })?
                #[target_feature(enable = $features)]
                fn compiled<T: $crate::kernels::Task>(isa: $name, task: T) -> T::Output {
                    task.run(isa)
                }
                // SAFETY: cpu: `self` exists only where `of_build` or `detect` found the features, or where a backend that has
                //   them among its own made it its `$rest`.
                unsafe { compiled(self, task) }
            }
        }
    };
}

pub(crate) use token;
