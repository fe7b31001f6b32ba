"""Counting machine code: a listing as nvdisasm prints it, counted by hand."""

from __future__ import annotations

import sass

LISTING = """
.text.kernel:
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E R2, [R4.64] ;
        /*0020*/               @P0 BRA `(.L_x_2) ;
.L_x_1:
        /*0030*/                   HMMA.16816.F32.BF16 R4, R8, R10, R4 ;
        /*0040*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/              @!UP0 IADD3 R5, R5, 0x1, RZ ;
.L_x_2:
        /*0070*/               @P2 BRA `(.L_x_0) ;
.L_x_4:
        /*0080*/                   FADD R1, R1, R1 ;
        /*0090*/                   FADD R1, R1, R1 ;
        /*00a0*/                   FADD R1, R1, R1 ;
        /*00b0*/                   FADD R1, R1, R1 ;
        /*00c0*/                   FADD R1, R1, R1 ;
        /*00d0*/                   FADD R1, R1, R1 ;
        /*00e0*/                   FADD R1, R1, R1 ;
        /*00f0*/               @P2 BRA `(.L_x_4) ;
        /*0100*/                   EXIT ;
.L_x_3:
        /*0110*/                   BRA `(.L_x_3);
        /*0120*/                   NOP;
"""


def test_the_main_loop_is_the_longest_that_multiplies_on_tensor_cores() -> None:
    # A turn: LDG, the branch not taken, HMMA, HMMA, the inner branch not taken, IADD3, the outer branch.
    assert sass.count(LISTING) == sass.Code(all=18, loop=7, turn=7)


def test_a_turn_leaves_out_what_can_be_passed_by() -> None:
    slow = "        /*0065*/                   FADD R1, R1, R1 ;\n" * 5
    skip = "        /*0064*/               @P3 BRA `(.L_x_2) ;\n"
    longer = LISTING.replace(".L_x_2:\n", skip + slow + ".L_x_2:\n")
    assert sass.count(longer) == sass.Code(all=24, loop=13, turn=8)
    copied = longer.replace("0065*/                   FADD", "0065*/                   LDGSTS")
    assert sass.count(copied) == sass.Code(all=24, loop=13, turn=13)


def test_without_tensor_cores_it_is_the_longest() -> None:
    assert sass.count(LISTING.replace("HMMA", "FFMA")) == sass.Code(all=18, loop=8, turn=0)
    assert sass.count(LISTING.replace("HMMA.16816.F32.BF16", "SHFL")) == sass.Code(all=18, loop=7, turn=0)


def test_code_without_a_loop() -> None:
    assert sass.count("\n".join(LISTING.splitlines()[-4:])) == sass.Code(all=2, loop=0, turn=0)
