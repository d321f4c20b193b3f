"""Images and COCO files as tests of formats write them."""

import json

from PIL import Image


def write_image(path, width=100, height=80, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 150)).save(path, **options)


def coco(path, images, annotations, categories=((1, "cat"), (7, "dog"))):
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": id, "name": name} for id, name in categories],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def entry(id, name, width=100, height=80):
    return {"id": id, "file_name": name, "width": width, "height": height}


def note(image_id, bbox, category_id=1, **more):
    return {"id": 900 + image_id, "image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def exif(orientation):
    value = Image.Exif()
    value[0x0112] = orientation
    return {"exif": value}
