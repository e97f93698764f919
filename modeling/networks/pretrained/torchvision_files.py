"""The files of torchvision's pre-trained weights, as its cache names them, with their figures; needs no torch.

Generated from torchvision 0.29; a test compares every row with it. Left out: weights for other preprocessing than the
architecture's default (SWAG).
"""

from typing import NamedTuple


class WeightsFacts(NamedTuple):
    """What torchvision says of one file.

    file: its name; what follows the last dash are the first digits of its sha256.
    top1: accuracy on ImageNet's validation images, in percent. gflops: of one image, in billions of multiply-adds.
    """

    file: str
    architecture: str
    member: str
    top1: float
    gflops: float

    @property
    def sha256_start(self) -> str:
        """The first hex digits of the file's sha256."""
        return self.file.rpartition("-")[2].removesuffix(".pth")


FILES = (
    WeightsFacts("alexnet-owt-7be5be79.pth", "alexnet", "V1", 56.5, 0.71),
    WeightsFacts("convnext_base-6075fbad.pth", "convnext_base", "V1", 84.1, 15.36),
    WeightsFacts("convnext_large-ea097f82.pth", "convnext_large", "V1", 84.4, 34.36),
    WeightsFacts("convnext_small-0c510722.pth", "convnext_small", "V1", 83.6, 8.68),
    WeightsFacts("convnext_tiny-983f1562.pth", "convnext_tiny", "V1", 82.5, 4.46),
    WeightsFacts("densenet121-a639ec97.pth", "densenet121", "V1", 74.4, 2.83),
    WeightsFacts("densenet161-8d451a50.pth", "densenet161", "V1", 77.1, 7.73),
    WeightsFacts("densenet169-b2777c0a.pth", "densenet169", "V1", 75.6, 3.36),
    WeightsFacts("densenet201-c1103571.pth", "densenet201", "V1", 76.9, 4.29),
    WeightsFacts("efficientnet_b0_rwightman-7f5810bc.pth", "efficientnet_b0", "V1", 77.7, 0.39),
    WeightsFacts("efficientnet_b1-c27df63c.pth", "efficientnet_b1", "V2", 79.8, 0.69),
    WeightsFacts("efficientnet_b1_rwightman-bac287d4.pth", "efficientnet_b1", "V1", 78.6, 0.69),
    WeightsFacts("efficientnet_b2_rwightman-c35c1473.pth", "efficientnet_b2", "V1", 80.6, 1.09),
    WeightsFacts("efficientnet_b3_rwightman-b3899882.pth", "efficientnet_b3", "V1", 82.0, 1.83),
    WeightsFacts("efficientnet_b4_rwightman-23ab8bcd.pth", "efficientnet_b4", "V1", 83.4, 4.39),
    WeightsFacts("efficientnet_b5_lukemelas-1a07897c.pth", "efficientnet_b5", "V1", 83.4, 10.27),
    WeightsFacts("efficientnet_b6_lukemelas-24a108a5.pth", "efficientnet_b6", "V1", 84.0, 19.07),
    WeightsFacts("efficientnet_b7_lukemelas-c5b4e57e.pth", "efficientnet_b7", "V1", 84.1, 37.75),
    WeightsFacts("efficientnet_v2_l-59c71312.pth", "efficientnet_v2_l", "V1", 85.8, 56.08),
    WeightsFacts("efficientnet_v2_m-dc08266a.pth", "efficientnet_v2_m", "V1", 85.1, 24.58),
    WeightsFacts("efficientnet_v2_s-dd5fe13b.pth", "efficientnet_v2_s", "V1", 84.2, 8.37),
    WeightsFacts("googlenet-1378be20.pth", "googlenet", "V1", 69.8, 1.5),
    WeightsFacts("inception_v3_google-0cc3c7bd.pth", "inception_v3", "V1", 77.3, 5.71),
    WeightsFacts("maxvit_t-bc5ab103.pth", "maxvit_t", "V1", 83.7, 5.56),
    WeightsFacts("mnasnet0.5_top1_67.823-3ffadce67e.pth", "mnasnet0_5", "V1", 67.7, 0.1),
    WeightsFacts("mnasnet0_75-7090bc5f.pth", "mnasnet0_75", "V1", 71.2, 0.21),
    WeightsFacts("mnasnet1.0_top1_73.512-f206786ef8.pth", "mnasnet1_0", "V1", 73.5, 0.31),
    WeightsFacts("mnasnet1_3-a4c69d6f.pth", "mnasnet1_3", "V1", 76.5, 0.53),
    WeightsFacts("mobilenet_v2-7ebf99e0.pth", "mobilenet_v2", "V2", 72.2, 0.3),
    WeightsFacts("mobilenet_v2-b0353104.pth", "mobilenet_v2", "V1", 71.9, 0.3),
    WeightsFacts("mobilenet_v3_large-5c1a4163.pth", "mobilenet_v3_large", "V2", 75.3, 0.22),
    WeightsFacts("mobilenet_v3_large-8738ca79.pth", "mobilenet_v3_large", "V1", 74.0, 0.22),
    WeightsFacts("mobilenet_v3_small-047dcff4.pth", "mobilenet_v3_small", "V1", 67.7, 0.06),
    WeightsFacts("regnet_x_16gf-ba3796d7.pth", "regnet_x_16gf", "V2", 82.7, 15.94),
    WeightsFacts("regnet_x_16gf-2007eb11.pth", "regnet_x_16gf", "V1", 80.1, 15.94),
    WeightsFacts("regnet_x_1_6gf-a12f2b72.pth", "regnet_x_1_6gf", "V2", 79.7, 1.6),
    WeightsFacts("regnet_x_1_6gf-e3633e7f.pth", "regnet_x_1_6gf", "V1", 77.0, 1.6),
    WeightsFacts("regnet_x_32gf-6eb8fdc6.pth", "regnet_x_32gf", "V2", 83.0, 31.74),
    WeightsFacts("regnet_x_32gf-9d47f8d0.pth", "regnet_x_32gf", "V1", 80.6, 31.74),
    WeightsFacts("regnet_x_3_2gf-7071aa85.pth", "regnet_x_3_2gf", "V2", 81.2, 3.18),
    WeightsFacts("regnet_x_3_2gf-f342aeae.pth", "regnet_x_3_2gf", "V1", 78.4, 3.18),
    WeightsFacts("regnet_x_400mf-62229a5f.pth", "regnet_x_400mf", "V2", 74.9, 0.41),
    WeightsFacts("regnet_x_400mf-adf1edd5.pth", "regnet_x_400mf", "V1", 72.8, 0.41),
    WeightsFacts("regnet_x_800mf-94a99ebd.pth", "regnet_x_800mf", "V2", 77.5, 0.8),
    WeightsFacts("regnet_x_800mf-ad17e45c.pth", "regnet_x_800mf", "V1", 75.2, 0.8),
    WeightsFacts("regnet_x_8gf-2b70d774.pth", "regnet_x_8gf", "V2", 81.7, 8.0),
    WeightsFacts("regnet_x_8gf-03ceed89.pth", "regnet_x_8gf", "V1", 79.3, 8.0),
    WeightsFacts("regnet_y_16gf-3e4a00f9.pth", "regnet_y_16gf", "V2", 82.9, 15.91),
    WeightsFacts("regnet_y_16gf-9e6ed7dd.pth", "regnet_y_16gf", "V1", 80.4, 15.91),
    WeightsFacts("regnet_y_1_6gf-0d7bc02a.pth", "regnet_y_1_6gf", "V2", 80.9, 1.61),
    WeightsFacts("regnet_y_1_6gf-b11a554e.pth", "regnet_y_1_6gf", "V1", 78.0, 1.61),
    WeightsFacts("regnet_y_32gf-8db6d4b5.pth", "regnet_y_32gf", "V2", 83.4, 32.28),
    WeightsFacts("regnet_y_32gf-4dee3f7a.pth", "regnet_y_32gf", "V1", 80.9, 32.28),
    WeightsFacts("regnet_y_3_2gf-9180c971.pth", "regnet_y_3_2gf", "V2", 82.0, 3.18),
    WeightsFacts("regnet_y_3_2gf-b5a9779c.pth", "regnet_y_3_2gf", "V1", 78.9, 3.18),
    WeightsFacts("regnet_y_400mf-e6988f5f.pth", "regnet_y_400mf", "V2", 75.8, 0.4),
    WeightsFacts("regnet_y_400mf-c65dace8.pth", "regnet_y_400mf", "V1", 74.0, 0.4),
    WeightsFacts("regnet_y_800mf-58fc7688.pth", "regnet_y_800mf", "V2", 78.8, 0.83),
    WeightsFacts("regnet_y_800mf-1b27b58c.pth", "regnet_y_800mf", "V1", 76.4, 0.83),
    WeightsFacts("regnet_y_8gf-dc2b1b54.pth", "regnet_y_8gf", "V2", 82.8, 8.47),
    WeightsFacts("regnet_y_8gf-d0d0e4a8.pth", "regnet_y_8gf", "V1", 80.0, 8.47),
    WeightsFacts("resnet101-cd907fc2.pth", "resnet101", "V2", 81.9, 7.8),
    WeightsFacts("resnet101-63fe2227.pth", "resnet101", "V1", 77.4, 7.8),
    WeightsFacts("resnet152-f82ba261.pth", "resnet152", "V2", 82.3, 11.51),
    WeightsFacts("resnet152-394f9c45.pth", "resnet152", "V1", 78.3, 11.51),
    WeightsFacts("resnet18-f37072fd.pth", "resnet18", "V1", 69.8, 1.81),
    WeightsFacts("resnet34-b627a593.pth", "resnet34", "V1", 73.3, 3.66),
    WeightsFacts("resnet50-11ad3fa6.pth", "resnet50", "V2", 80.9, 4.09),
    WeightsFacts("resnet50-0676ba61.pth", "resnet50", "V1", 76.1, 4.09),
    WeightsFacts("resnext101_32x8d-110c445d.pth", "resnext101_32x8d", "V2", 82.8, 16.41),
    WeightsFacts("resnext101_32x8d-8ba56ff5.pth", "resnext101_32x8d", "V1", 79.3, 16.41),
    WeightsFacts("resnext101_64x4d-173b62eb.pth", "resnext101_64x4d", "V1", 83.2, 15.46),
    WeightsFacts("resnext50_32x4d-1a0047aa.pth", "resnext50_32x4d", "V2", 81.2, 4.23),
    WeightsFacts("resnext50_32x4d-7cdf4587.pth", "resnext50_32x4d", "V1", 77.6, 4.23),
    WeightsFacts("shufflenetv2_x0.5-f707e7126e.pth", "shufflenet_v2_x0_5", "V1", 60.6, 0.04),
    WeightsFacts("shufflenetv2_x1-5666bf0f80.pth", "shufflenet_v2_x1_0", "V1", 69.4, 0.14),
    WeightsFacts("shufflenetv2_x1_5-3c479a10.pth", "shufflenet_v2_x1_5", "V1", 73.0, 0.3),
    WeightsFacts("shufflenetv2_x2_0-8be3c8ee.pth", "shufflenet_v2_x2_0", "V1", 76.2, 0.58),
    WeightsFacts("squeezenet1_0-b66bff10.pth", "squeezenet1_0", "V1", 58.1, 0.82),
    WeightsFacts("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1", "V1", 58.2, 0.35),
    WeightsFacts("swin_b-68c6b09e.pth", "swin_b", "V1", 83.6, 15.43),
    WeightsFacts("swin_s-5e29d889.pth", "swin_s", "V1", 83.2, 8.74),
    WeightsFacts("swin_t-704ceda3.pth", "swin_t", "V1", 81.5, 4.49),
    WeightsFacts("swin_v2_b-781e5279.pth", "swin_v2_b", "V1", 84.1, 20.32),
    WeightsFacts("swin_v2_s-637d8ceb.pth", "swin_v2_s", "V1", 83.7, 11.55),
    WeightsFacts("swin_v2_t-b137f0e2.pth", "swin_v2_t", "V1", 82.1, 5.94),
    WeightsFacts("vgg11-8a719046.pth", "vgg11", "V1", 69.0, 7.61),
    WeightsFacts("vgg11_bn-6002323d.pth", "vgg11_bn", "V1", 70.4, 7.61),
    WeightsFacts("vgg13-19584684.pth", "vgg13", "V1", 69.9, 11.31),
    WeightsFacts("vgg13_bn-abd245e5.pth", "vgg13_bn", "V1", 71.6, 11.31),
    WeightsFacts("vgg16-397923af.pth", "vgg16", "V1", 71.6, 15.47),
    WeightsFacts("vgg16_bn-6c64b313.pth", "vgg16_bn", "V1", 73.4, 15.47),
    WeightsFacts("vgg19-dcbb9e9d.pth", "vgg19", "V1", 72.4, 19.63),
    WeightsFacts("vgg19_bn-c79401a0.pth", "vgg19_bn", "V1", 74.2, 19.63),
    WeightsFacts("vit_b_16-c867db91.pth", "vit_b_16", "V1", 81.1, 17.56),
    WeightsFacts("vit_b_32-d86f8d99.pth", "vit_b_32", "V1", 75.9, 4.41),
    WeightsFacts("vit_l_16-852ce7e3.pth", "vit_l_16", "V1", 79.7, 61.55),
    WeightsFacts("vit_l_32-c7638314.pth", "vit_l_32", "V1", 77.0, 15.38),
    WeightsFacts("wide_resnet101_2-d733dc28.pth", "wide_resnet101_2", "V2", 82.5, 22.75),
    WeightsFacts("wide_resnet101_2-32ee1156.pth", "wide_resnet101_2", "V1", 78.8, 22.75),
    WeightsFacts("wide_resnet50_2-9ba9bcbe.pth", "wide_resnet50_2", "V2", 81.6, 11.4),
    WeightsFacts("wide_resnet50_2-95faca4d.pth", "wide_resnet50_2", "V1", 78.5, 11.4),
)

BY_FILE = {facts.file: facts for facts in FILES}

# Of each architecture, its default weights: the first in the table.
BY_ARCHITECTURE = {facts.architecture: facts for facts in reversed(FILES)}
