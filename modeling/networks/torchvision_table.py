"""torchvision's classification networks as a table, so that listing and choosing them does not import torch.

Generated from torchvision 0.29; a test compares every row with it. Sizes are those of the default weights'
preprocessing.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """One network.

    enum, members: torchvision's enum of pre-trained weights without its suffix `_Weights`, and its members with a
        classification head without their prefix `IMAGENET1K_`, the default first, separated by blanks.
    image_size, resize: px; the side of its square input, and the shorter side before cropping.
    head, cam_layer: as in `Architecture`.
    num_values: floating-point values in its state dict without the head; identifies the network of a weights file.
    smallest: px; the smallest side that it accepts. step: its side must be a multiple of this many px.
    half: its default weights normalise by a mean and deviation of 0.5, not ImageNet's.
    """

    name: str
    enum: str
    members: str
    image_size: int
    resize: int
    head: str
    cam_layer: str | None
    num_values: int
    smallest: int = 1
    step: int = 1
    half: bool = False

    @property
    def weights_enum(self) -> str:
        """The name of torchvision's enum of the pre-trained weights."""
        return f"{self.enum}_Weights"

    @property
    def weights(self) -> tuple[str, ...]:
        """The members of that enum with a classification head, the default first."""
        return tuple(f"IMAGENET1K_{member}" for member in self.members.split())


_SWAG = "SWAG_E2E_V1 SWAG_LINEAR_V1"

ROWS = (
    Entry("alexnet", "AlexNet", "V1", 224, 256, "classifier.6", "features.11", 57_003_840, smallest=63),
    Entry("convnext_base", "ConvNeXt_Base", "V1", 224, 232, "classifier.2", "features", 87_566_464, smallest=32),
    Entry("convnext_large", "ConvNeXt_Large", "V1", 224, 232, "classifier.2", "features", 196_230_336, smallest=32),
    Entry("convnext_small", "ConvNeXt_Small", "V1", 224, 230, "classifier.2", "features", 49_454_688, smallest=32),
    Entry("convnext_tiny", "ConvNeXt_Tiny", "V1", 224, 236, "classifier.2", "features", 27_820_128, smallest=32),
    Entry("densenet121", "DenseNet121", "V1", 224, 256, "classifier", "features", 7_037_504, smallest=29),
    Entry("densenet161", "DenseNet161", "V1", 224, 256, "classifier", "features", 26_691_936, smallest=29),
    Entry("densenet169", "DenseNet169", "V1", 224, 256, "classifier", "features", 12_642_880, smallest=29),
    Entry("densenet201", "DenseNet201", "V1", 224, 256, "classifier", "features", 18_321_984, smallest=29),
    Entry("efficientnet_b0", "EfficientNet_B0", "V1", 224, 256, "classifier.1", "features", 4_049_564),
    Entry("efficientnet_b1", "EfficientNet_B1", "V2 V1", 240, 255, "classifier.1", "features", 6_575_232),
    Entry("efficientnet_b2", "EfficientNet_B2", "V1", 288, 288, "classifier.1", "features", 7_768_562),
    Entry("efficientnet_b3", "EfficientNet_B3", "V1", 300, 320, "classifier.1", "features", 10_783_528),
    Entry("efficientnet_b4", "EfficientNet_B4", "V1", 380, 384, "classifier.1", "features", 17_673_816),
    Entry("efficientnet_b5", "EfficientNet_B5", "V1", 456, 456, "classifier.1", "features", 28_513_520),
    Entry("efficientnet_b6", "EfficientNet_B6", "V1", 528, 528, "classifier.1", "features", 40_960_136),
    Entry("efficientnet_b7", "EfficientNet_B7", "V1", 600, 600, "classifier.1", "features", 64_097_680),
    Entry("efficientnet_v2_l", "EfficientNet_V2_L", "V1", 480, 480, "classifier.1", "features", 117_746_848, half=True),
    Entry("efficientnet_v2_m", "EfficientNet_V2_M", "V1", 480, 480, "classifier.1", "features", 53_150_388),
    Entry("efficientnet_v2_s", "EfficientNet_V2_S", "V1", 384, 384, "classifier.1", "features", 20_331_360),
    Entry("googlenet", "GoogLeNet", "V1", 224, 256, "fc", "inception5b", 5_614_464, smallest=15),
    Entry("inception_v3", "Inception_V3", "V1", 299, 342, "fc", "Mixed_7c", 21_820_000, smallest=75),
    Entry("maxvit_t", "MaxVit_T", "V1", 224, 224, "classifier.5", "blocks.3", 30_455_240, smallest=224, step=224),
    Entry("mnasnet0_5", "MNASNet0_5", "V1", 224, 256, "classifier.1", "layers", 958_136),
    Entry("mnasnet0_75", "MNASNet0_75", "V1", 224, 232, "classifier.1", "layers", 1_919_016),
    Entry("mnasnet1_0", "MNASNet1_0", "V1", 224, 256, "classifier.1", "layers", 3_140_232),
    Entry("mnasnet1_3", "MNASNet1_3", "V1", 224, 232, "classifier.1", "layers", 5_050_072),
    Entry("mobilenet_v2", "MobileNet_V2", "V2 V1", 224, 232, "classifier.1", "features", 2_257_984),
    Entry("mobilenet_v3_large", "MobileNet_V3_Large", "V2 V1", 224, 232, "classifier.3", "features", 4_226_432),
    Entry("mobilenet_v3_small", "MobileNet_V3_Small", "V1", 224, 256, "classifier.3", "features", 1_529_968),
    Entry("regnet_x_16gf", "RegNet_X_16GF", "V2 V1", 224, 232, "fc", "trunk_output", 52_340_704),
    Entry("regnet_x_1_6gf", "RegNet_X_1_6GF", "V2 V1", 224, 232, "fc", "trunk_output", 8_320_640),
    Entry("regnet_x_32gf", "RegNet_X_32GF", "V2 V1", 224, 232, "fc", "trunk_output", 105_452_576),
    Entry("regnet_x_3_2gf", "RegNet_X_3_2GF", "V2 V1", 224, 232, "fc", "trunk_output", 14_350_112),
    Entry("regnet_x_400mf", "RegNet_X_400MF", "V2 V1", 224, 232, "fc", "trunk_output", 5_132_832),
    Entry("regnet_x_800mf", "RegNet_X_800MF", "V2 V1", 224, 232, "fc", "trunk_output", 6_623_968),
    Entry("regnet_x_8gf", "RegNet_X_8GF", "V2 V1", 224, 232, "fc", "trunk_output", 37_742_112),
    Entry("regnet_y_128gf", "RegNet_Y_128GF", _SWAG, 384, 384, "fc", "trunk_output", 637_834_966),
    Entry("regnet_y_16gf", "RegNet_Y_16GF", "V2 V1 " + _SWAG, 224, 232, "fc", "trunk_output", 80_687_956),
    Entry("regnet_y_1_6gf", "RegNet_Y_1_6GF", "V2 V1", 224, 232, "fc", "trunk_output", 10_366_102),
    Entry("regnet_y_32gf", "RegNet_Y_32GF", "V2 V1 " + _SWAG, 224, 232, "fc", "trunk_output", 141_492_058),
    Entry("regnet_y_3_2gf", "RegNet_Y_3_2GF", "V2 V1", 224, 232, "fc", "trunk_output", 17_989_498),
    Entry("regnet_y_400mf", "RegNet_Y_400MF", "V2 V1", 224, 232, "fc", "trunk_output", 3_930_296),
    Entry("regnet_y_800mf", "RegNet_Y_800MF", "V2 V1", 224, 232, "fc", "trunk_output", 5_677_944),
    Entry("regnet_y_8gf", "RegNet_Y_8GF", "V2 V1", 224, 232, "fc", "trunk_output", 37_451_000),
    Entry("resnet101", "ResNet101", "V2 V1", 224, 232, "fc", "layer4", 42_605_504),
    Entry("resnet152", "ResNet152", "V2 V1", 224, 232, "fc", "layer4", 58_295_232),
    Entry("resnet18", "ResNet18", "V1", 224, 256, "fc", "layer4", 11_186_112),
    Entry("resnet34", "ResNet34", "V1", 224, 256, "fc", "layer4", 21_301_696),
    Entry("resnet50", "ResNet50", "V2 V1", 224, 232, "fc", "layer4", 23_561_152),
    Entry("resnext101_32x8d", "ResNeXt101_32X8D", "V2 V1", 224, 232, "fc", "layer4", 86_945_216),
    Entry("resnext101_64x4d", "ResNeXt101_64X4D", "V1", 224, 232, "fc", "layer4", 81_609_152),
    Entry("resnext50_32x4d", "ResNeXt50_32X4D", "V2 V1", 224, 232, "fc", "layer4", 23_048_128),
    Entry("shufflenet_v2_x0_5", "ShuffleNet_V2_X0_5", "V1", 224, 256, "fc", "conv5", 349_744),
    Entry("shufflenet_v2_x1_0", "ShuffleNet_V2_X1_0", "V1", 224, 256, "fc", "conv5", 1_269_784),
    Entry("shufflenet_v2_x1_5", "ShuffleNet_V2_X1_5", "V1", 224, 232, "fc", "conv5", 2_502_064),
    Entry("shufflenet_v2_x2_0", "ShuffleNet_V2_X2_0", "V1", 224, 232, "fc", "conv5", 5_378_712),
    Entry("squeezenet1_0", "SqueezeNet1_0", "V1", 224, 256, "classifier.1", "features", 735_424, smallest=21),
    Entry("squeezenet1_1", "SqueezeNet1_1", "V1", 224, 256, "classifier.1", "features", 722_496, smallest=17),
    Entry("swin_b", "Swin_B", "V1", 224, 238, "head", "permute", 86_743_224, smallest=4),
    Entry("swin_s", "Swin_S", "V1", 224, 246, "head", "permute", 48_837_258, smallest=4),
    Entry("swin_t", "Swin_T", "V1", 224, 232, "head", "permute", 27_519_354, smallest=4),
    Entry("swin_v2_b", "Swin_V2_B", "V1", 256, 272, "head", "permute", 86_916_648, smallest=4),
    Entry("swin_v2_s", "Swin_V2_S", "V1", 256, 260, "head", "permute", 48_979_242, smallest=4),
    Entry("swin_v2_t", "Swin_V2_T", "V1", 256, 260, "head", "permute", 27_587_970, smallest=4),
    Entry("vgg11", "VGG11", "V1", 224, 256, "classifier.6", "features.19", 128_766_336, smallest=32),
    Entry("vgg11_bn", "VGG11_BN", "V1", 224, 256, "classifier.6", "features.27", 128_777_344, smallest=32),
    Entry("vgg13", "VGG13", "V1", 224, 256, "classifier.6", "features.23", 128_950_848, smallest=32),
    Entry("vgg13_bn", "VGG13_BN", "V1", 224, 256, "classifier.6", "features.33", 128_962_624, smallest=32),
    Entry("vgg16", "VGG16", "V1", 224, 256, "classifier.6", "features.29", 134_260_544, smallest=32),
    Entry("vgg16_bn", "VGG16_BN", "V1", 224, 256, "classifier.6", "features.42", 134_277_440, smallest=32),
    Entry("vgg19", "VGG19", "V1", 224, 256, "classifier.6", "features.35", 139_570_240, smallest=32),
    Entry("vgg19_bn", "VGG19_BN", "V1", 224, 256, "classifier.6", "features.51", 139_592_256, smallest=32),
    Entry("vit_b_16", "ViT_B_16", "V1 " + _SWAG, 224, 256, "heads.head", None, 85_798_656, smallest=16, step=16),
    Entry("vit_b_32", "ViT_B_32", "V1", 224, 256, "heads.head", None, 87_455_232, smallest=32, step=32),
    Entry("vit_h_14", "ViT_H_14", _SWAG, 518, 518, "heads.head", None, 632_189_440, smallest=14, step=14),
    Entry("vit_l_16", "ViT_L_16", "V1 " + _SWAG, 224, 242, "heads.head", None, 303_301_632, smallest=16, step=16),
    Entry("vit_l_32", "ViT_L_32", "V1", 224, 256, "heads.head", None, 305_510_400, smallest=32, step=32),
    Entry("wide_resnet101_2", "Wide_ResNet101_2", "V2 V1", 224, 232, "fc", "layer4", 124_975_552),
    Entry("wide_resnet50_2", "Wide_ResNet50_2", "V2 V1", 224, 232, "fc", "layer4", 66_902_464),
)
