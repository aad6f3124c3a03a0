"""Every shipped family of methods, small: the words that choose it."""

METHODS = {
    "vae": ("experiment=digits_vae",),
    "iwae": ("experiment=digits_iwae",),
    "renyi": ("experiment=digits_renyi",),
    "cubo": ("sampler=none", "objective=cubo"),
    "metvae_hmc": ("experiment=digits_metvae_hmc",),
    "metvae_flow": ("experiment=digits_metvae_flow",),
    "lmcvae": ("experiment=digits_lmcvae",),
    "amcvae": ("experiment=digits_amcvae",),
    "uha": ("experiment=digits_uha",),
    "hvae": ("experiment=digits_hvae",),
    "flow_vae": ("experiment=digits_flow_vae",),
    "hoffman": ("experiment=digits_hoffman",),
    "vcd": ("experiment=digits_vcd",),
}
NAMES = sorted(METHODS)
# Of any of them: a small network and little data, 320 for training.
SMALL = (
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "latent_dim=2",
    "dataset.batch_size=64",
    "dataset.num_test=1377",
    "dataset.num_valid=100",
    "trainer.device=cpu",
    "trainer.max_epochs=2",
    "trainer.test_samples=5",
    "trainer.test_data=20",
)
