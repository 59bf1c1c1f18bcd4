"""One photograph named by a network from a file, as a script of a peer's user does it.

    python -m benchmarks.predicting torchvision|timm|keras FILE [PICTURE]

Without a picture the file is made, with random weights. "torchvision-all" builds the networks of
torchvision without memory for their weights, which its RegNets cannot do, and counts what `zoo
compare --all` counts of ours: parameters and multiply-accumulates.
"""

import sys
from typing import Any


def torchvision(file: str, picture: str | None) -> Any:
    from .contenders.torch import torch, torchvision_models

    models = torchvision_models()
    model = models.resnet50()
    if picture is None:
        return torch.save(model.state_dict(), file)
    model.load_state_dict(torch.load(file, weights_only=True))
    transform = models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    return _named(model.eval(), transform, picture)


def timm(file: str, picture: str | None) -> Any:
    from .contenders.torch import torchvision_models

    torchvision_models()  # a broken one is mended there
    import timm
    from safetensors.torch import save_file

    if picture is None:
        return save_file(timm.create_model("resnet50").state_dict(), file)
    model = timm.create_model("resnet50", checkpoint_path=file).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    return _named(model, transform, picture)


def keras(file: str, picture: str | None) -> Any:
    import keras
    import numpy as np

    resnet = keras.applications.resnet
    if picture is None:
        return resnet.ResNet50(weights=None).save_weights(file)
    model = resnet.ResNet50(weights=file)
    image = keras.utils.img_to_array(keras.utils.load_img(picture, target_size=(224, 224)))
    shares = model.predict(resnet.preprocess_input(image[None]), verbose=0)[0]
    return np.argsort(shares)[-5:]


def _named(model: Any, transform: Any, picture: str) -> Any:
    import torch
    from PIL import Image

    with torch.inference_mode():
        shares = model(transform(Image.open(picture).convert("RGB"))[None]).softmax(1)
    return shares.topk(5).indices.tolist()


def torchvision_all() -> str:
    from torch.utils.flop_counter import FlopCounterMode

    from .contenders.torch import torch, torchvision_models

    models = torchvision_models()
    names = [name for name in models.list_models(module=models) if "regnet" not in name]
    for name in names:
        side = 299 if name == "inception_v3" else 224
        with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as count:
            model = models.get_model(name).eval()
            model(torch.empty(1, 3, side, side))
        print(name, sum(p.numel() for p in model.parameters()), count.get_total_flops() // 2)
    return f"{len(names)} networks"


if __name__ == "__main__":
    way, *rest = sys.argv[1:]
    if way == "torchvision-all":
        print(torchvision_all())
    else:
        file, picture = rest[0], rest[1] if len(rest) > 1 else None
        print({"torchvision": torchvision, "timm": timm, "keras": keras}[way](file, picture))
