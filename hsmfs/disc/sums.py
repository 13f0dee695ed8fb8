"""SHA256SUMS, for `sha256sum -c` on the mounted disc, and the README of a disc.

Names are escaped as GNU coreutils does (sha256sum, "Output from md5sum"): a line that begins with
a backslash has \\\\, \\n and \\r for those bytes in its name.
"""

from __future__ import annotations

from collections.abc import Iterable

from hsmfs.disc.layout import Placed, VolumeLabel


def sums_line(sha256: bytes, name: bytes) -> bytes:
    """One line for a name relative to the disc's root."""
    escaped = name.replace(b"\\", rb"\\").replace(b"\n", rb"\n").replace(b"\r", rb"\r")
    mark = b"\\" if escaped != name else b""
    return mark + sha256.hex().encode() + b"  " + escaped + b"\n"


def file_sums(placed: Iterable[Placed]) -> Iterable[bytes]:
    """A line for each stored name of each file."""
    for item in placed:
        if item.file.stored_sha256 is not None:
            for name in item.stored:
                if name is not None:
                    yield sums_line(item.file.stored_sha256, name)


def readme(label: VolumeLabel) -> bytes:
    """README.txt of one volume."""
    return _TEXT.format(label=label).encode()


def parity_readme(label: VolumeLabel, row: int) -> bytes:
    """README.txt of a parity disc."""
    return _PARITY_TEXT.format(label=label, row=row, letter="PQ"[row]).encode()


_PARITY_TEXT = """\
PARITY DISC {label.barcode}
Volume {label.uuid}, disc {label.index} of set "{label.set_name}" ({label.set_uuid}):
{label.k} data and {label.m} parity discs.

What this is
  One disc of an archive of files, written by hsmfs. It holds no files of the archive, but what is
  needed to rebuild another disc of the same set that was lost or does not read any more.

  PARITY.bin      parity row {row} ({letter}) of the images of the set's data discs
  VOLUME.json     all data discs of the set with barcode, size and SHA-256 of the whole image, and
                  what the image of each is multiplied with ("coefficient")
  MANIFEST.jsonl  empty: there are no files
  SHA256SUMS      SHA-256 of what lies here

How to rebuild a disc
  hsm-disc set rebuild DISC... -C DIR    (from hsmfs, a single Python file) from the other discs of
                                         the set, or their images; any {label.m} may be missing
  Without it: byte number i of PARITY.bin is the sum of coefficient x byte number i of the image of
  each data disc; an image that is shorter counts as followed by zeros. Sum is exclusive or; product
  is that of GF(2^8) with the polynomial 0x11d (x^8+x^4+x^3+x^2+1). In row 0 all coefficients are 1,
  so one lost disc is the exclusive or of row 0 and all other data discs. Two lost discs follow from
  rows 0 and 1 as two equations with two unknowns (RAID 6). Cut the result to the size in
  VOLUME.json and check its SHA-256: it is an ordinary ISO 9660 image.


校验盘 {label.barcode}
卷 {label.uuid}，光盘组“{label.set_name}”（{label.set_uuid}）第 {label.index} 张：
数据盘 {label.k} 张，校验盘 {label.m} 张。

这是什么
  这是由 hsmfs 写成的文件归档光盘之一。它不含归档文件，而是同组其他光盘丢失或损坏时用来重建的数据。

  PARITY.bin      本组各数据盘镜像的第 {row} 行校验（{letter}）
  VOLUME.json     本组全部数据盘：条码、镜像大小、整个镜像的 SHA-256，以及各镜像所乘的系数
  MANIFEST.jsonl  空文件：盘上没有归档文件
  SHA256SUMS      盘上内容的 SHA-256

如何重建一张光盘
  hsm-disc set rebuild 光盘... -C 目录   （hsmfs 附带的单个 Python 文件）
                                         用同组其余光盘或其镜像重建，最多可缺 {label.m} 张
  不用它时：PARITY.bin 的第 i 个字节，是各数据盘镜像第 i 个字节乘以其系数之和；较短的镜像以零补齐。
  加法为异或，乘法为 GF(2^8) 乘法，多项式 0x11d。第 0 行系数全为 1，因此丢失一张盘时，它等于
  第 0 行与其余各数据盘的异或；丢失两张盘时，由第 0、1 两行解二元一次方程组（即 RAID 6）。结果截到
  VOLUME.json 所列大小，核对 SHA-256，即为普通的 ISO 9660 镜像。
"""


_TEXT = """\
ARCHIVE DISC {label.barcode}
Volume {label.uuid}, disc {label.index} of set "{label.set_name}" ({label.set_uuid}):
{label.k} data and {label.m} parity discs.

What this is
  One disc of an archive of files, written by hsmfs. It needs no hsmfs to be read: it is a plain
  ISO 9660 filesystem (level 3, with Rock Ridge names), and the files are ordinary files.

  files/          the files, under the paths they had when the disc was written
  files.long/     files whose path is too long for a disc, by number; MANIFEST.jsonl has the path
  MANIFEST.jsonl  one line of JSON a file: true path, owner, mode, times, attributes, checksums
  SHA256SUMS      SHA-256 of every file as it lies here
  VOLUME.json     which disc of which set this is; checksums of MANIFEST.jsonl and SHA256SUMS
  CATALOG.sqlite.zst  (on some discs) the archive's whole catalog, an SQLite database

How to read it with ordinary tools
  mount -o ro /dev/sr0 /mnt           or, for an image:  mount -o ro,loop IMAGE /mnt
  xorriso -osirrox on -indev IMAGE -extract / DIR      (no mount needed)
  cd /mnt && sha256sum -c SHA256SUMS  check every file
  zstd -d NAME.zst                    a name ending in .zst here, but not in MANIFEST.jsonl's
                                      "path", was compressed; this gives the file back
  cat NAME.part-0001-of-0003 NAME.part-0002-of-0003 NAME.part-0003-of-0003 > NAME
                                      joins a file that needed several discs; if the names have
                                      .zst.part-, join them first, then zstd -d
  hsm-disc extract DISC... -C DIR     (from hsmfs, a single Python file) does all this and also
                                      restores owners, times, attributes and hard links


归档光盘 {label.barcode}
卷 {label.uuid}，光盘组“{label.set_name}”（{label.set_uuid}）第 {label.index} 张：
数据盘 {label.k} 张，校验盘 {label.m} 张。

这是什么
  这是由 hsmfs 写成的一张文件归档光盘。读取它不需要 hsmfs：它是标准的 ISO 9660 文件系统
  （第 3 级，带 Rock Ridge 文件名），里面都是普通文件。

  files/          文件，路径与刻录时相同
  files.long/     路径过长、无法直接存放的文件，以编号命名；真实路径见 MANIFEST.jsonl
  MANIFEST.jsonl  每个文件一行 JSON：真实路径、属主、权限、时间、扩展属性、校验和
  SHA256SUMS      盘上每个文件的 SHA-256
  VOLUME.json     本盘属于哪个光盘组、第几张；MANIFEST.jsonl 与 SHA256SUMS 的校验和
  CATALOG.sqlite.zst  （部分光盘有）整个归档的目录，SQLite 数据库

如何用常见工具读取
  mount -o ro /dev/sr0 /mnt           镜像文件则用：mount -o ro,loop 镜像 /mnt
  xorriso -osirrox on -indev 镜像 -extract / 目录      （无需挂载）
  cd /mnt && sha256sum -c SHA256SUMS  校验每个文件
  zstd -d 文件名.zst                  盘上名字以 .zst 结尾而 MANIFEST.jsonl 的 "path" 中没有的，
                                      是压缩存放的，用此命令还原
  cat 名.part-0001-of-0003 名.part-0002-of-0003 名.part-0003-of-0003 > 名
                                      合并分存在几张光盘上的文件；若名字含 .zst.part-，
                                      先合并，再用 zstd -d
  hsm-disc extract 光盘... -C 目录    （hsmfs 附带的单个 Python 文件）完成以上全部，
                                      并恢复属主、时间、扩展属性和硬链接
"""
