UPDATE lifecycle.actions SET result = %(result)s WHERE action_id = %(action_id)s
