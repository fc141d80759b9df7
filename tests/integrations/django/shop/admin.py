"""What staff sees of it."""

from __future__ import annotations

from django.contrib import admin

from tests.integrations.django.shop.models import Everything, Member, Person


@admin.register(Person)
class PersonAdmin(admin.ModelAdmin):
    """Searched by the whole address, as it is written or whatever its case."""

    list_display = ("name", "email", "note")
    sortable_by = ("name",)
    search_fields = ("email__exact", "=email")
    ordering = ("name",)


@admin.register(Everything)
class EverythingAdmin(admin.ModelAdmin):
    """Filtered by a truth value."""

    list_display = ("text", "flag")
    sortable_by = ()
    list_filter = ("flag",)


admin.site.register(Member)
